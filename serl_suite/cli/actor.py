"""`serl actor`: the actor process alone."""

import datetime
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import tyro

from serl_suite.cli.runs import at_the_rigs_pace
from serl_suite.cli.stopping import stop_on_signals
from serl_suite.cli.typed import as_typed

__all__ = ["run"]

log = logging.getLogger(__name__)

Kind = TypeVar("Kind", bound=msgspec.Struct)

DESCRIPTION = """Run an actor alone, on the robot's workstation.

  serl actor FrankaPickCube-v0 --connect tcp://learner:5555 --keys KEYS --actor.pace realtime
  serl actor --run RUN            an actor of a run on this machine

It acts with the newest policy it has, sends every step as it happens, and never waits for the network. Steps that the
learner has not acknowledged are in its folder: after a crash of either side the next start sends them first."""


def run(arguments: Sequence[str]) -> int:
    """Acts until the learner ends the training or a signal comes; 0 in each case."""
    stop = stop_on_signals(say=True)
    from serl_suite.nodes.config import ActorConfig, RigFile, TrainConfig

    class Remote(msgspec.Struct, frozen=True, kw_only=True):
        task: tyro.conf.Positional[str]
        """Gymnasium id of the task; `serl tasks` lists ours."""
        obs: Literal["state", "pixels"] = "state"
        """As the learner's run: what is observed."""
        reward: str = "task"
        """As the learner's run: task, classifier:MODEL or key. MODEL is a file on this machine."""
        connect: str
        """The learner's address, such as tcp://learner:5555."""
        folder: Path = Path("actor")
        """Keeps unacknowledged steps of any run (spool) and, under TASK-DATE, the metrics of each start."""
        keys: Path | None = None
        """Folder of CURVE keys (`serl keys`); needed off loopback."""
        rig: RigFile = None
        """The rig to act on, such as hardware/rigs/fr3.yaml."""
        seed: int = 0
        """Seed of environment and exploration."""
        number: int = 0
        """Tells several actors of one learner apart."""
        actor: ActorConfig = msgspec.field(default_factory=ActorConfig)

    class Local(msgspec.Struct, frozen=True, kw_only=True):
        run: Path
        """Folder of the run; its configuration, address and spool are used."""
        number: int = 0
        """Tells several actors of one learner apart."""

    def parse(kind: type[Kind]) -> Kind:
        return tyro.cli(kind, args=list(arguments), prog="serl actor", description=DESCRIPTION)

    is_local = any(word == "--run" or word.startswith("--run=") for word in arguments)
    chosen: Local | Remote = parse(Local) if is_local else parse(Remote)
    from serl_suite.nodes.actor import Actor
    from serl_suite.nodes.run_folder import RunFolder
    from serl_suite.wire.keys import client_keys

    if isinstance(chosen, Local):
        folder = RunFolder(chosen.run)
        config, spool, metrics = folder.config, folder.spool, folder.metrics
        keys = Path(config.learner.keys) if config.learner.keys is not None else None
        if not folder.address.exists():
            log.info("waiting for a learner on %s", folder.path)
        address = folder.wait_for_address(stop)
        if stop.is_set():
            return 0
    else:
        config = at_the_rigs_pace(
            TrainConfig(
                task=chosen.task,
                obs=chosen.obs,
                reward=chosen.reward,
                rig=chosen.rig,
                seed=chosen.seed,
                actor=chosen.actor,
            )
        )
        start = f"{config.task.replace('/', '_')}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
        spool, metrics = chosen.folder / "spool", chosen.folder / start
        keys, address = chosen.keys, chosen.connect
    actor = Actor(
        config,
        address=address,
        spool=spool,
        metrics=metrics,
        keys=client_keys(folder=keys) if keys is not None else None,
        number=chosen.number,
    )
    reason = actor.run(stop)
    print(f"{reason}; metrics are in {metrics}")  # noqa: T201
    if stop.is_set():
        again = as_typed(shlex.join(["serl", "actor", *arguments]))
        print(f"Nothing is lost. Go on with: {again}")  # noqa: T201
    return 0
