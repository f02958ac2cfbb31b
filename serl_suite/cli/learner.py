"""`serl learner`: the learner process alone."""

import logging
import os
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from serl_suite.cli.stopping import stop_on_signals
from serl_suite.cli.typed import as_typed, observing

if TYPE_CHECKING:
    from serl_suite.nodes.group import Group
    from serl_suite.nodes.run_folder import RunFolder

__all__ = ["run"]

log = logging.getLogger(__name__)

DESCRIPTION = """Run a learner alone, on the machine with the GPU.

It waits for actors (`serl actor TASK --connect ADDRESS`), trains on what they send and publishes policies.
Kill it at any moment: started again with --resume, it goes on where it was, and nothing that an actor did is lost.
Off loopback it needs keys: see `serl keys --help`.
With several GPUs: torchrun --nproc-per-node 2 -m -- serl_suite.nodes.learner TASK --run X --learner.device cuda
Each takes a share of every batch, and they learn what one with whole batches would."""


def run(arguments: Sequence[str]) -> int:
    """Trains until the budget is spent, an evaluation passes or a signal comes; 0 in each case."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun's
        return _learn(arguments, None)
    from serl_suite.nodes.follower import follow
    from serl_suite.nodes.group import is_group, join_group

    if not is_group():
        return _learn(arguments, None)
    with join_group() as group:
        if group.ranks.rank > 0:
            follow(group)
            return 0
        code = _learn(arguments, group)
        group.send(b"")
        return code


def _learn(arguments: Sequence[str], group: "Group | None") -> int:
    stop = stop_on_signals(say=True)
    from serl_suite.cli.runs import discard_on_error, open_run

    folder, is_new = open_run(arguments, prog="serl learner", description=DESCRIPTION)
    from serl_suite.cli.learner_status import status_lines
    from serl_suite.nodes.demonstrations import import_demonstrations
    from serl_suite.nodes.learner import Learner

    with discard_on_error(folder) if is_new else nullcontext():
        folder.hold_files()
        if is_new and folder.config.demos not in (None, "none"):
            import_demonstrations(folder.config.demos, folder.demos)
        learner = Learner(folder, group)
    folder.announce(learner.address)
    log.info("listening on %s; start an actor: %s", learner.address, _actor_command(folder, learner.address))
    with status_lines(folder):
        outcome = learner.run(stop)
    if outcome is None:
        resume = as_typed(f"serl learner --resume {folder.path}")
        print(f"Stopped; everything is kept in {folder.path}. Go on with: {resume}")  # noqa: T201
    else:
        summary = f"{outcome.reason}, after {outcome.env_steps} env steps and {outcome.updates} updates"
        print(f"{summary}: {folder.path}. Evaluate it: {as_typed(f'serl eval {folder.path}')}")  # noqa: T201
    return 0


def _actor_command(folder: "RunFolder", address: str) -> str:
    """What starts an actor of this run: from its folder on this machine, by address from another."""
    config = folder.config
    if config.learner.keys is None:
        return as_typed(f"serl actor --run {folder.path}")
    port = address.rpartition(":")[2]
    words = ["serl", "actor", config.task, "--connect", f"tcp://THIS-MACHINE:{port}", "--keys", "KEYS"]
    words += ["--actor.pace", config.actor.pace, *observing(config.obs, config.actor)]
    if config.rig is not None:
        words += ["--rig", config.rig.source or "RIG"]
    if config.reward != "task":
        words += ["--reward", config.reward]
    return shlex.join(words)
