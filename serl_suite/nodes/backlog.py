"""Steps that the learner has received and not learnt from yet."""

from collections import deque
from collections.abc import Iterable

from serl_suite.wire.messages import Step

__all__ = ["Backlog"]


class Backlog:
    """A queue in the order of the journal, that knows how many transitions wait in it."""

    def __init__(self, steps: Iterable[tuple[str, Step]] = ()) -> None:
        self._steps: deque[tuple[str, Step]] = deque()
        self.transitions = 0
        """Steps that wait, resets left out."""
        self.add(steps)

    def __len__(self) -> int:
        """Steps that wait, resets included."""
        return len(self._steps)

    def add(self, steps: Iterable[tuple[str, Step]]) -> None:
        """Queues steps, each with its session."""
        for session_id, step in steps:
            self._steps.append((session_id, step))
            self.transitions += step.index > 0

    def pop(self) -> tuple[str, Step]:
        """Takes the oldest step.

        Raises: IndexError, where none waits.
        """
        session_id, step = self._steps.popleft()
        self.transitions -= step.index > 0
        return session_id, step

    def newest_policy(self) -> int:
        """The newest policy version that acted in it; -1 where none did."""
        return max((step.policy_version for _, step in self._steps), default=-1)
