"""What the learner received and has not taken yet."""

from collections import deque
from typing import TypeVar

from serl_suite.wire.messages import Evaluation, Step

__all__ = ["Arrivals", "step_bytes"]

MAX_EVALUATIONS = 1000

T = TypeVar("T")


def step_bytes(step: Step) -> int:
    """Bytes that a step keeps in memory, about."""
    return sum([array.nbytes for array in step.observation.values()]) + 512


class Arrivals:
    """Steps and evaluations on their way from the thread at the socket to the caller's."""

    def __init__(self) -> None:
        self._steps: deque[tuple[str, Step]] = deque()
        self._evaluations: deque[Evaluation] = deque(maxlen=MAX_EVALUATIONS)
        self._bytes_in = self._bytes_out = 0  # each written by one thread only

    def __bool__(self) -> bool:
        return bool(self._steps or self._evaluations)

    @property
    def nbytes(self) -> int:
        """Of the steps, about."""
        return self._bytes_in - self._bytes_out

    def add_steps(self, session_id: str, steps: list[Step]) -> None:
        self._bytes_in += sum(map(step_bytes, steps))
        self._steps.extend([(session_id, step) for step in steps])

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """The oldest is lost where nobody takes any."""
        self._evaluations.append(evaluation)

    def take_steps(self) -> list[tuple[str, Step]]:
        steps = _empty(self._steps)
        self._bytes_out += sum(step_bytes(step) for _, step in steps)
        return steps

    def take_evaluations(self) -> list[Evaluation]:
        return _empty(self._evaluations)


def _empty(queue: deque[T]) -> list[T]:
    """What the queue holds now, while another thread may add to it."""
    return [queue.popleft() for _ in range(len(queue))]
