"""How good a classifier is on labelled frames: frame by frame, and as the judge of whole episodes."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serl_suite.rewards.calibration import Reliability, rates_at, reliability, roc
from serl_suite.rewards.classifier import RewardModel
from serl_suite.rewards.frames import Clip, Frames

__all__ = ["Outcome", "Scores", "score"]

Array = npt.NDArray[np.float64]


class Outcome(NamedTuple):
    """One episode, judged frame by frame as in use: threshold, gate, and so many frames in a row."""

    name: str
    declared: int | None
    """Frame at which a success was declared; None: at none."""
    happened: int | None
    """The first frame that is a success."""
    false: bool
    """Declared on a frame that is none."""


class Scores(NamedTuple):
    """Of n frames."""

    probability: Array
    """Of a success. Shape: (n,)"""
    succeeded: npt.NDArray[np.bool_]
    """Shape: (n,)"""
    wrong: npt.NDArray[np.bool_]
    """On the other side of the threshold. Shape: (n,)"""
    accuracy: float
    """At the threshold."""
    false_positive_rate: float
    true_positive_rate: float
    calibration: Reliability
    area: float
    """Below the ROC curve."""
    confusion: npt.NDArray[np.int64]
    """Frames of each class (rows) by the class that is most probable (columns); of two classes, by threshold."""
    outcomes: list[Outcome]

    def summary(self) -> dict[str, float | int]:
        """The figures, for a table or a file."""
        tried = [o for o in self.outcomes if o.happened is not None]
        delays = [o.declared - o.happened for o in tried if o.declared is not None and not o.false]  # type: ignore[operator]
        return {
            "frames": len(self.succeeded),
            "success_frames": int(self.succeeded.sum()),
            "accuracy": self.accuracy,
            "false_positive_rate": self.false_positive_rate,
            "false_positives": int((self.wrong & ~self.succeeded).sum()),
            "false_negative_rate": 1.0 - self.true_positive_rate,
            "false_negatives": int((self.wrong & self.succeeded).sum()),
            "calibration_error": self.calibration.error,
            "roc_area": self.area,
            "episodes": len(self.outcomes),
            "episodes_with_success": len(tried),
            "episodes_found": sum(o.declared is not None and not o.false for o in tried),
            "episodes_falsely_declared": sum(o.false for o in self.outcomes),
            "median_delay_frames": float(np.median(delays)) if delays else float("nan"),
        }


def score(model: RewardModel, frames: Frames) -> Scores:
    """Judges every frame.

    Args:
        model: With its threshold.
        frames: That it was not made with; some.
    """
    probabilities = model.judge_frames(frames)
    success = model.card.classes.index(model.card.success)
    probability, succeeded = probabilities[:, success], frames.succeeded
    declared = probability >= model.card.threshold
    false, true = rates_at(probability, succeeded, model.card.threshold)
    count = len(model.card.classes)
    chosen = probabilities.argmax(1) if count > 2 else np.where(declared, success, 1 - success)
    confusion = np.bincount(frames.labels * count + chosen, minlength=count * count).reshape(count, count)
    ends = np.cumsum([len(clip.labels) for clip in frames.clips])
    parts = np.split(probability, ends[:-1])
    return Scores(
        probability, succeeded, declared != succeeded, float((declared == succeeded).mean()), false, true,
        reliability(probability, succeeded), roc(probability, succeeded)[2], confusion,
        [_outcome(model, clip, part, success) for clip, part in zip(frames.clips, parts, strict=True)],
    )  # fmt: skip


def _outcome(model: RewardModel, clip: Clip, probability: Array, success: int) -> Outcome:
    """As `SuccessReward` would judge the episode, which ends where a success is declared."""
    seen = (probability >= model.card.threshold) & model.gate.holds_all(clip.states, len(probability))
    declared = _first_run(seen, clip.places, model.card.config.hold)
    truth = clip.labels == success
    happened = int(np.argmax(truth)) if truth.any() else None
    return Outcome(clip.name, declared, happened, declared is not None and not truth[declared])


def _first_run(seen: npt.NDArray[np.bool_], places: npt.NDArray[np.int64], hold: int) -> int | None:
    """The frame with which so many neighbours in a row were seen as a success; frames that are left out part a row."""
    row = 0
    for frame, success in enumerate(seen):
        follows = frame > 0 and places[frame] == places[frame - 1] + 1
        row = (row if follows else 0) + 1 if success else 0
        if row == hold:
            return frame
    return None
