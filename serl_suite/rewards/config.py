"""Settings of a classifier; without torch, so that a command line is read before that is imported."""

import math

import msgspec

from serl_suite.errors import SerlError
from serl_suite.networks.encoder_config import EncoderConfig

__all__ = ["BadClassifier", "ClassifierConfig"]


WIDEST = 4096


class BadClassifier(SerlError):
    """Settings, a file or data that give no classifier; says which, and what to do."""


class ClassifierConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a classifier is made, and trained."""

    backbone: str = "dilated"
    """dilated: small, with maps fine enough to tell a success from a near miss. cnn: small, with coarse maps. resnet10,
    resnet18: with GroupNorm. timm:NAME: any of timm's."""
    weights: str | None = None
    """What the backbone starts with: a file of `serl encoder pretrain`, as a path or as a name in the folder
    SERL_WEIGHTS; `random`: a random network on purpose. Unset: random, for a backbone that is then trained."""
    frozen: bool = False
    """Whether the backbone stays as it is; what follows it is trained in any case."""
    hidden: int = 128
    """Width of the layer after the backbone's keypoints."""
    epochs: int = 20
    """Passes over all training frames."""
    batch: int = 32
    """Frames of an update."""
    learning_rate: float = 2e-3
    """Of Adam at the start; it falls to zero along a cosine."""
    weight_decay: float = 1e-2
    """Decoupled, as in AdamW."""
    shift: int = 1
    """Largest random shift of a picture [pixels]; a large one hides how high something is lifted."""
    brightness: float = 0.2
    """Largest random change of brightness, as a share of white."""
    contrast: float = 0.2
    """Largest random change of contrast, as a factor about 1."""
    hue_deg: float = 12.0
    """Largest random turn of the hues [degrees]."""
    calibration_share: float = 0.2
    """Of the episodes: they set temperature and threshold."""
    test_share: float = 0.2
    """Of the episodes: nothing is set by them, they are what the report is about."""
    target_fpr: float = 0.002
    """Largest share of failure frames that may pass the threshold, on the calibration episodes; it is 0.5 or more."""
    hold: int = 2
    """In use, so many frames in a row must be seen as a success before one is declared."""
    gate: str = ""
    """What the state must show, too, before a success is declared: `tcp_pose[2] > 0.05, gripper[0] < 0.6`."""
    seed: int = 0
    """Of split, weights and augmentation."""

    def __post_init__(self) -> None:
        self.encoder()
        shares = (self.calibration_share, self.test_share)
        if min(shares) <= 0 or sum(shares) >= 1:
            raise BadClassifier(
                "calibration_share and test_share are positive, and leave something for training"
            )
        if min(self.hidden, self.epochs, self.batch, self.hold) < 1 or self.seed < 0:
            raise BadClassifier("hidden, epochs, batch and hold are 1 or more, and seed is not negative")
        if self.hidden > WIDEST:
            raise BadClassifier(f"hidden is {self.hidden}; {WIDEST} at most")
        if not all(map(math.isfinite, (self.learning_rate, self.weight_decay, self.hue_deg, *shares))):
            raise BadClassifier("learning_rate, weight_decay, hue_deg and shares are finite")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise BadClassifier("learning_rate is positive, and weight_decay not negative")
        if self.shift < 0 or not 0 <= self.brightness <= 1 or not 0 <= self.contrast <= 1:
            raise BadClassifier("shift is 0 or more, brightness and contrast lie in [0, 1]")
        if not 0 < self.target_fpr < 1:
            raise BadClassifier(f"target_fpr is {self.target_fpr}; give a share such as 0.002")

    def encoder(self) -> EncoderConfig:
        """The part that a backbone is made from.

        Raises:
            BadEncoder: The settings do not go together.
        """
        return EncoderConfig(
            backbone=self.backbone, weights=self.weights, frozen=self.frozen, shift=self.shift
        )
