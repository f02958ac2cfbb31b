"""A line now and then about how a learner gets on, for whoever started it alone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from serl_suite.cli.training_state import TrainingState
from serl_suite.nodes.run_folder import RunFolder

__all__ = ["status_lines"]

log = logging.getLogger(__name__)

STATUS_PERIOD_S = 10.0


@contextmanager
def status_lines(folder: RunFolder) -> Iterator[None]:
    """While it lasts, logs every `STATUS_PERIOD_S` where training stands, from the run's metrics."""
    over = Event()
    thread = Thread(target=_say, args=(TrainingState(folder), over), name="status", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _say(state: TrainingState, over: Event) -> None:
    while not over.wait(STATUS_PERIOD_S):
        steps = state.env_steps
        state.read()
        quiet = bool(state.newest) and state.env_steps == steps
        log.info("%s", status(state) + (", no new step" if quiet else ""))


def status(state: TrainingState) -> str:
    """For example: step 1430 of 10000, 10640 updates, success 85 %, 12 updates owed."""
    updates, owed = state.value("learner/updates"), state.value("learner/updates_owed")
    if updates is None:
        return "waiting for an actor"
    success = state.value("episode/success_rate")
    parts = [f"step {state.env_steps} of {state.config.max_steps}", f"{updates:.0f} updates"]
    if success is not None:
        parts.append(f"success {100 * success:.0f} %")
    return ", ".join([*parts, f"{owed or 0.0:.0f} updates owed"])
