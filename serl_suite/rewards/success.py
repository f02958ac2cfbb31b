"""A classifier as the judge of success, frame by frame, in the loop."""

import uuid
from pathlib import Path

from serl_suite.rewards.classifier import RewardModel
from serl_suite.rewards.disagreements import Disagreements
from serl_suite.rewards.reward import Verdict
from serl_suite.wire.messages import Observation
from serl_suite.wire.spaces import EnvSpec

__all__ = ["SuccessReward"]


class SuccessReward:
    """Declares a success once `hold` frames in a row reach the threshold, each within the gate.

    Args:
        model: Of `serl reward train`.
        spec: Of the environment whose observations will be judged.
        disagreements: Folder for frames on which the model alone and the truth differ; None keeps none.

    Raises:
        BadClassifier: The environment is of another task, has other cameras or sizes, or lacks what the gate asks for.
    """

    def __init__(self, model: RewardModel, spec: EnvSpec, disagreements: Path | None = None) -> None:
        model.card.check(spec, spec.task)
        model.gate.check(spec)
        self.model, self._rate_hz = model, spec.rate_hz
        self._kept = (
            None
            if disagreements is None
            else Disagreements(disagreements, spec, f"reward-{uuid.uuid4().hex[:8]}")
        )
        self._row = self._frames = 0

    @classmethod
    def load(cls, path: Path, spec: EnvSpec, disagreements: Path | None = None) -> "SuccessReward":
        """With the model in a file.

        Raises:
            BadClassifier: It is none, or does not fit the environment.
        """
        return cls(RewardModel.load(path), spec, disagreements)

    def reset(self) -> None:
        """An episode begins; the one before is written where it had disagreements."""
        if self._kept is not None:
            self._kept.end_episode()
        self._row = self._frames = 0

    def judge(self, observation: Observation, truth: bool | None = None) -> Verdict:
        """The verdict on the next observation; see `Reward.judge`."""
        card = self.model.card
        pictures = {camera: observation[camera][None] for camera in card.cameras}
        probability = float(self.model.success_probability(pictures)[0])
        passes = probability >= card.threshold
        seen = passes and self.model.gate.holds(observation)
        if self._kept is not None and truth is not None and passes != truth:
            self._kept.keep(observation, truth, self._frames / self._rate_hz)
        self._frames += 1
        self._row = self._row + 1 if seen else 0
        return Verdict(self._row >= card.config.hold, probability)

    def close(self) -> None:
        """Writes the last episode's disagreements."""
        self.reset()
