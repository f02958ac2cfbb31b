"""The newest figures of a run, read from its metrics as they are written."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from serl_suite.nodes.run_folder import RunFolder

__all__ = ["TrainingState"]

SPEED_WINDOW_S = 60.0
"""Training time over which the speed for the ETA is taken."""
SETTLE_S = 5.0
"""Less training time than this tells no speed."""
PAUSE_S = 3.0
"""So long without a step or an update is a pause: the policy is evaluated, or an actor is away."""

Record = dict[str, float | bool | None]


class TrainingState:
    """What is known of a run; of its earlier starts only what still holds.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.config = folder.config
        self._metrics = folder.metrics
        self._tails: dict[Path, _Tail] = {}
        self.newest: Record = {}
        """The newest value of each metric since this object was made."""
        self.env_steps = 0
        self.episodes = 0
        """Since this object was made, as `speed` is."""
        self.recent: deque[bool] = deque(maxlen=folder.config.evaluation.window)
        self.rates: list[float] = []
        """Rolling success rate after each episode that told."""
        self.last_evaluation: tuple[float, int] | None = None
        """Success rate and env steps."""
        self.robot_time_s: float | None = None
        self.speed = _Speed()
        self.read()
        self.earlier_s = self.value("learner/training_s") or 0.0
        """Training time of earlier starts."""
        self.newest, self.speed, self.episodes = {}, _Speed(), 0

    def read(self) -> None:
        """Takes in the lines written since the last call."""
        for record in self._new("learner.jsonl"):
            self._take(record)
            if self.value("learner/updates"):
                self.speed.add(
                    self.value("learner/training_s") or 0.0,
                    int(record["env_steps"] or 0),
                    int(self.value("learner/updates") or 0),
                )
        for record in self._new("actor*.jsonl"):
            self._take(record)
            self.episodes += "episode/return" in record
            self.robot_time_s = self.value("actor/robot_time_s") or self.robot_time_s
            success = record.get("episode/success")
            if success is not None:
                self.recent.append(bool(success))
                self.rates.append(sum(self.recent) / len(self.recent))
            rate = record.get("evaluation/success_rate")
            if rate is not None:
                self.last_evaluation = float(rate), int(record["env_steps"] or 0)

    def value(self, name: str) -> float | None:
        """The newest value of a metric."""
        value = self.newest.get(name)
        return None if value is None else float(value)

    @property
    def phase(self) -> str:
        if not self.newest:
            return "starting learner and actor"
        if not self.episodes:
            return "waiting for the first episode"
        return "training" if self.value("learner/updates") else "collecting the first steps"

    @property
    def eta_s(self) -> float | None:
        """Time to the end of the step budget at the speed of the last minute; None while that is not known."""
        steps_per_s = self.speed.steps_per_s
        return max(0, self.config.max_steps - self.env_steps) / steps_per_s if steps_per_s else None

    def _new(self, pattern: str) -> Iterator[Record]:
        for path in sorted(self._metrics.glob(pattern)):
            yield from self._tails.setdefault(path, _Tail(path)).read()

    def _take(self, record: Record) -> None:
        self.newest |= record
        self.env_steps = max(self.env_steps, int(record["env_steps"] or 0))


class _Tail:
    """The complete lines appended to a JSONL file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def read(self) -> list[Record]:
        """Nothing where there is no file yet; a line that a killed process has torn is left out."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        records = []
        for line in lines:
            try:
                records.append(msgspec.json.decode(line, type=Record))
            except msgspec.DecodeError:
                continue  # torn by a process that was killed
        return records


class _Speed:
    """Env steps per second over the last `SPEED_WINDOW_S` of training, pauses left out."""

    def __init__(self) -> None:
        self._spans: deque[tuple[float, int]] = deque()
        """Seconds, and the steps that were done in them."""
        self._last: tuple[float, int, int] | None = None
        self._waited_s = self._worked_s = 0.0
        """Without a step, and without an update or with them."""

    @property
    def steps_per_s(self) -> float | None:
        """None before `SETTLE_S` of training."""
        seconds = sum(span for span, _ in self._spans)
        return sum(steps for _, steps in self._spans) / seconds if seconds >= SETTLE_S else None

    def add(self, time_s: float, env_steps: int, updates: int) -> None:
        """Takes in where training stood at a time; all go back when a learner starts again."""
        last, self._last = self._last, (time_s, env_steps, updates)
        if last is None or time_s <= last[0] or env_steps < last[1]:
            self._waited_s = self._worked_s = 0.0
            return
        span, steps = time_s - last[0], env_steps - last[1]
        if steps == 0:
            if updates > last[2]:
                self._worked_s += span
            else:
                self._waited_s += span
            return
        span += self._worked_s + (self._waited_s if self._waited_s < PAUSE_S else 0.0)
        self._waited_s = self._worked_s = 0.0
        self._spans.append((span, steps))
        while sum(seconds for seconds, _ in self._spans) - self._spans[0][0] >= SPEED_WINDOW_S:
            self._spans.popleft()
