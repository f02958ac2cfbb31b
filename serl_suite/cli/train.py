"""`serl train`: one command from nothing to a judged policy."""

from collections.abc import Sequence
from threading import Event

from serl_suite.cli.stopping import stop_on_signals

__all__ = ["run"]

DESCRIPTION = """Teach a robot a task on this machine.

  serl train FrankaPickCube-v0
  serl train Pendulum-v1 --demos none --max-steps 8000

Records demonstrations with the task's scripted expert (or takes yours: --demos), runs a learner process and an actor
process that talk over ZMQ exactly as on two machines, ends when a deterministic evaluation passes or the step budget is
spent, evaluates 100 fresh episodes and leaves a run folder: configuration, metrics, checkpoints, episodes, learning
curve, video and report.html. Exit code 0 only when that last evaluation passes.

Ctrl-C at any moment ends both processes within two seconds and keeps the data."""


def run(arguments: Sequence[str]) -> int:
    """Trains, evaluates and reports; 0 passed, 1 not, 130 interrupted."""
    stop = stop_on_signals()
    from serl_suite.cli.live_view import LiveView
    from serl_suite.cli.main import EXIT_INTERRUPTED
    from serl_suite.cli.runs import open_run
    from serl_suite.nodes.supervisor import Supervisor

    folder, is_new = open_run(arguments, prog="serl train", description=DESCRIPTION)
    if is_new:
        _prepare_demonstrations(folder, stop)
    if not stop.is_set():
        supervisor = Supervisor(folder)
        with LiveView(folder) as view:
            supervisor.train(stop, view.update)
    if stop.is_set():
        print(f"Stopped; everything is kept. Go on with: serl train --resume {folder.path}")  # noqa: T201
        return EXIT_INTERRUPTED
    from serl_suite.cli.evaluate import evaluate_and_report

    return evaluate_and_report(folder, stop)
