"""The classifier's network, and its file: pictures of several cameras to the probability of each class.

Each channel of the backbone's maps comes to a keypoint: where it is strongest, and how strong (spatial softmax, Levine
et al. 2016, arXiv 1504.00702). Success mostly is a matter of where things are, and a place that training never saw lies
between places that it saw; a weight for each cell of the maps would know nothing there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu, softmax

from serl_suite.data.checkpoint import BadCheckpoint, load_checkpoint, save_checkpoint
from serl_suite.networks.backbone import feature_shape, make_backbone
from serl_suite.networks.encoder_config import RANDOM, BadEncoder
from serl_suite.rewards.calibration import log_softmax
from serl_suite.rewards.config import BadClassifier, ClassifierConfig
from serl_suite.rewards.frames import Frames, Parts, check_cameras
from serl_suite.rewards.gate import parse_gate
from serl_suite.wire.spaces import EnvSpec

__all__ = ["Card", "Classifier", "RewardModel"]

KIND, FORMAT = "reward classifier", 1
CHUNK = 256
"""Frames that are judged at once."""
Pictures = Mapping[str, npt.NDArray[np.uint8]]


class Classifier(nn.Module):
    """Keypoints of every camera, a hidden layer with ReLU, and a logit for each class.

    Args:
        cameras: Their names.
        side: Of the square pictures [pixels].
        classes: How many.
        config: Names the backbone, too.
        generator: Draws the weights; on the CPU.

    Raises:
        BadEncoder: There is no such backbone, or its weights do not fit.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        side: int,
        classes: int,
        config: ClassifierConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.cameras = tuple(cameras)
        self.backbone = make_backbone(config.encoder(), side, generator)
        height, width, channels = feature_shape(self.backbone, side)
        self.log_sharpness = nn.Parameter(torch.zeros(len(self.cameras), 1, 1, channels))
        self.register_buffer("grid", _grid(height, width), persistent=False)
        self.hidden = nn.Parameter(_he((config.hidden, 3 * len(self.cameras) * channels), generator))
        self.hidden_bias = nn.Parameter(torch.zeros(config.hidden))
        self.out = nn.Parameter(_he((classes, config.hidden), generator))
        self.out_bias = nn.Parameter(torch.zeros(classes))

    def forward(self, pictures: Mapping[str, Tensor]) -> Tensor:
        """Shape of each: (n, side, side, 3), uint8 -> (n, classes)"""
        y = relu(linear(self.keypoints(pictures), self.hidden, self.hidden_bias))
        return linear(y, self.out, self.out_bias)

    def keypoints(self, pictures: Mapping[str, Tensor]) -> Tensor:
        """x and y in [-1, 1] and strength of each channel in each camera.

        Shape of each: (n, side, side, 3), uint8 -> (n, 3 cameras channels)
        """
        images = torch.stack([pictures[camera] for camera in self.cameras])
        maps = self.backbone(images.flatten(0, 1)).float()
        maps = maps.flatten(1, 2).view(*images.shape[:2], -1, maps.shape[-1])
        weights = softmax(maps * self.log_sharpness.exp(), 2)
        places = torch.einsum("mnsc,sd->nmcd", weights, self.grid)
        strengths = (weights * maps).sum(2).transpose(0, 1)
        return torch.cat([places.flatten(1), strengths.flatten(1)], 1)


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a classifier beside its weights."""

    kind: str = KIND
    format: int = FORMAT
    task: str
    """That it was trained on."""
    cameras: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    side: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    """Of the square pictures [pixels]."""
    classes: tuple[str, ...]
    success: str
    config: ClassifierConfig
    log_prior: tuple[float, ...]
    """Of the classes in the training frames."""
    temperature: Annotated[float, msgspec.Meta(gt=0, le=1e3)]
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)]
    """A frame at or above it is taken for a success."""
    data: tuple[str, ...]
    """Where the episodes lay."""
    parts: Parts

    def __post_init__(self) -> None:
        if self.success not in self.classes or len(self.log_prior) != len(self.classes):
            raise ValueError(
                f"success {self.success!r} and {len(self.log_prior)} priors of classes {self.classes}"
            )

    def check(self, spec: EnvSpec, whose: str) -> None:
        """Raises: BadClassifier, where that is of another task, or its cameras or sizes are others."""
        check_cameras(spec, self.cameras, self.side, whose)
        if spec.task != self.task:
            raise BadClassifier(
                f"the classifier tells successes of {self.task}, and this is {spec.task}; train one: serl reward "
                f"record {spec.task}"
            )


class RewardModel:
    """A trained classifier.

    Args:
        network: On the device to compute on.
        card: What goes with it.
    """

    def __init__(self, network: Classifier, card: Card) -> None:
        self.network, self.card = network.eval(), card
        self.gate = parse_gate(card.config.gate)
        self._success = card.classes.index(card.success)
        self._log_prior = np.array(card.log_prior)
        self._device = network.out.device

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> "RewardModel":
        """Reads a file of `save`.

        Raises:
            BadClassifier: It is none, is damaged, or its weights are of another architecture than it says.
        """
        if not path.is_file():
            raise BadClassifier(
                f"there is no classifier {path}; check the path, or make one: serl reward train DATA"
            )
        try:
            tensors, meta = load_checkpoint(path)
        except BadCheckpoint as error:
            raise BadClassifier(
                f"{path} is damaged, or no classifier at all; copy it again, or make one: serl reward train DATA"
            ) from error
        try:
            card = msgspec.convert(meta, Card)
        except (msgspec.ValidationError, BadEncoder) as error:
            raise BadClassifier(
                f"{path} is no classifier ({error}); make one: serl reward train DATA"
            ) from error
        if (card.kind, card.format) != (KIND, FORMAT):
            raise BadClassifier(
                f"{path} is a {card.kind} of format {card.format}; this version reads {KIND} {FORMAT}"
            )
        # All weights come from the file, so the one that the backbone once began with is not looked for.
        config = msgspec.structs.replace(card.config, weights=RANDOM)
        network = Classifier(card.cameras, card.side, len(card.classes), config, torch.Generator())
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise BadClassifier(
                f"{path} holds weights of another architecture than the {config.backbone} it names ({error}); train "
                "it again with `serl reward train DATA`"
            ) from error
        return cls(network.to(device), card)

    def save(self, path: Path) -> None:
        """Writes weights and card as one file.

        Raises:
            DiskFull: Nothing was written.
        """
        save_checkpoint(path, self.network.state_dict(), msgspec.to_builtins(self.card))

    @torch.inference_mode()
    def logits(self, pictures: Pictures) -> npt.NDArray[np.float64]:
        """Before temperature and prior. Shape of each: (n, side, side, 3) -> (n, classes)"""
        tensors = {camera: torch.as_tensor(pictures[camera]) for camera in self.card.cameras}
        count = len(tensors[self.card.cameras[0]])
        out = np.empty((count, len(self.card.classes)))
        for start in range(0, count, CHUNK):
            part = {camera: t[start : start + CHUNK].to(self._device) for camera, t in tensors.items()}
            out[start : start + CHUNK] = self.network(part).float().cpu().numpy()
        return out

    def probabilities(self, pictures: Pictures) -> npt.NDArray[np.float64]:
        """Of each class. Shape of each: (n, side, side, 3) -> (n, classes)"""
        return np.exp(log_softmax(self.logits(pictures) / self.card.temperature + self._log_prior))

    def success_probability(self, pictures: Pictures) -> npt.NDArray[np.float64]:
        """Shape of each: (n, side, side, 3) -> (n,)"""
        success: npt.NDArray[np.float64] = self.probabilities(pictures)[:, self._success]
        return success

    def judge_frames(self, frames: Frames) -> npt.NDArray[np.float64]:
        """Probabilities of all frames' classes, clip after clip. Shape: (n, classes)"""
        parts = [self.probabilities(clip.pictures) for clip in frames.clips]
        return np.concatenate([np.zeros((0, len(self.card.classes))), *parts])


def _grid(height: int, width: int) -> Tensor:
    """x and y of each cell. Shape: (height width, 2)"""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def _he(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    weights: Tensor = torch.randn(shape, generator=generator) * (2.0 / shape[1]) ** 0.5
    return weights
