"""What a run folder tells of its training so far, whole or cut short."""

from collections import deque
from pathlib import Path
from typing import NamedTuple

import msgspec

from serl_suite.nodes.evaluation import EvaluationResult, read_result
from serl_suite.nodes.metrics import read_metrics
from serl_suite.nodes.outcome import Outcome
from serl_suite.nodes.run_folder import RunFolder, RunFolderError

__all__ = ["EpisodeRecord", "RunResults", "rolling_mean"]


class EpisodeRecord(NamedTuple):
    """One training episode as an actor logged it."""

    env_steps: int
    """When it ended."""
    success: bool | None
    """None where the environment does not tell."""
    episode_return: float


class RunResults:
    """Metrics, outcome and evaluation of a run; whatever is not there yet is None or empty.

    Args:
        folder: Of the run; read once.

    Raises:
        RunFolderError: outcome.json or evaluation.json is damaged.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.config = folder.config
        self.learner = read_metrics(folder.metrics / "learner.jsonl")
        records = [
            record for path in sorted(folder.metrics.glob("actor*.jsonl")) for record in read_metrics(path)
        ]
        self.actor = sorted(records, key=lambda record: record["env_steps"])
        self.outcome = _read_outcome(folder.outcome)
        self.evaluation = _read_evaluation(folder.evaluation)

    @property
    def episodes(self) -> list[EpisodeRecord]:
        """Training episodes of all actors, in the order of env steps."""
        return [
            EpisodeRecord(
                env_steps=int(record["env_steps"]),
                success=bool(record["episode/success"]) if "episode/success" in record else None,
                episode_return=record["episode/return"],
            )
            for record in self.actor
            if "episode/return" in record
        ]

    @property
    def attempts(self) -> list[tuple[int, float]]:
        """Env steps and success rate of each evaluation during training."""
        name = "evaluation/success_rate"
        return [(int(record["env_steps"]), record[name]) for record in self.actor if name in record]

    @property
    def knows_success(self) -> bool:
        """Whether the environment tells success, as far as is known yet."""
        if self.evaluation is not None:
            return self.evaluation.knows_success
        return any(episode.success is not None for episode in self.episodes)

    @property
    def env_steps(self) -> int:
        if self.outcome is not None:
            return self.outcome.env_steps
        return max((int(record["env_steps"]) for record in self.learner + self.actor), default=0)

    @property
    def updates(self) -> int:
        if self.outcome is not None:
            return self.outcome.updates
        return int(max((record["learner/updates"] for record in self.learner), default=0))

    @property
    def robot_time_s(self) -> float | None:
        """Time that the robot moved while training; None where neither actor nor evaluation has told."""
        times = [record["actor/robot_time_s"] for record in self.actor if "actor/robot_time_s" in record]
        if not times and self.evaluation is not None:
            return self.env_steps / self.evaluation.rate_hz
        return max(times, default=None)

    @property
    def training_time_s(self) -> float:
        """Wall-clock of training, pauses before a resume left out."""
        if self.outcome is not None:
            return self.outcome.training_s
        return max((record["learner/training_s"] for record in self.learner), default=0.0)

    @property
    def passed(self) -> bool | None:
        """Whether the final evaluation reached `pass_at`; None without one, or where success is not known."""
        if self.evaluation is None or not self.evaluation.knows_success:
            return None
        return self.evaluation.success_rate >= self.config.evaluation.pass_at


def rolling_mean(values: list[float], window: int) -> list[float]:
    """Returns the mean of the last `window` values (fewer at the start) at each of them."""
    recent: deque[float] = deque(maxlen=window)
    means = []
    for value in values:
        recent.append(value)
        means.append(sum(recent) / len(recent))
    return means


def _read_outcome(path: Path) -> Outcome | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Outcome)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise RunFolderError(
            f"{path} is damaged ({error}); move it away, the rest of the run can be read"
        ) from error


def _read_evaluation(path: Path) -> EvaluationResult | None:
    try:
        return read_result(path)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise RunFolderError(
            f"{path} is damaged ({error}); measure again: serl eval {path.parent}"
        ) from error
