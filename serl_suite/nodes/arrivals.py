"""What the learner received and has not taken yet."""

from collections import deque
from typing import TypeVar

from serl_suite.wire.messages import Evaluation, Step

__all__ = ["Arrivals"]

MAX_EVALUATIONS = 1000

T = TypeVar("T")


class Arrivals:
    """Steps and evaluations on their way from the thread at the socket to the caller's."""

    def __init__(self) -> None:
        self._steps: deque[tuple[str, Step]] = deque()
        self._evaluations: deque[Evaluation] = deque(maxlen=MAX_EVALUATIONS)

    def __bool__(self) -> bool:
        return bool(self._steps or self._evaluations)

    @property
    def steps(self) -> int:
        """How many."""
        return len(self._steps)

    def add_steps(self, session_id: str, steps: list[Step]) -> None:
        self._steps.extend([(session_id, step) for step in steps])

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """The oldest is lost where nobody takes any."""
        self._evaluations.append(evaluation)

    def take_steps(self) -> list[tuple[str, Step]]:
        return _empty(self._steps)

    def take_evaluations(self) -> list[Evaluation]:
        return _empty(self._evaluations)


def _empty(queue: deque[T]) -> list[T]:
    """What the queue holds now, while another thread may add to it."""
    return [queue.popleft() for _ in range(len(queue))]
