"""`serl learner`: the learner process alone."""

from collections.abc import Sequence
from contextlib import nullcontext

from serl_suite.cli.stopping import stop_on_signals

__all__ = ["run"]

DESCRIPTION = """Run a learner alone, on the machine with the GPU.

It waits for actors (`serl actor TASK --connect ADDRESS`), trains on what they send and publishes policies.
Kill it at any moment: started again with --resume, it goes on where it was, and nothing that an actor did is lost.
Off loopback it needs keys: see `serl keys --help`."""


def run(arguments: Sequence[str]) -> int:
    """Trains until the budget is spent, an evaluation passes or a signal comes; 0 in each case."""
    stop = stop_on_signals()
    from serl_suite.cli.runs import discard_on_error, open_run
    from serl_suite.nodes.demonstrations import import_demonstrations
    from serl_suite.nodes.learner import Learner

    folder, is_new = open_run(arguments, prog="serl learner", description=DESCRIPTION)
    with discard_on_error(folder) if is_new else nullcontext():
        if is_new and folder.config.demos not in (None, "none"):
            import_demonstrations(folder.config.demos, folder.demos)
        learner = Learner(folder)
    folder.announce(learner.address)
    outcome = learner.run(stop)
    if outcome is not None:
        summary = f"{outcome.reason}, after {outcome.env_steps} env steps and {outcome.updates} updates"
        print(f"{summary}: {folder.path}")  # noqa: T201
    return 0
