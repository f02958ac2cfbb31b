"""Training a backbone without labels: it learns to tell how the robot moved between two pictures (inverse dynamics).

To tell how everything in sight moved, it has to know where everything was. Who reads the motion off the feature maps is
thrown away.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from serl_suite.data.durable import write_durably
from serl_suite.networks.backbone import feature_shape, make_backbone
from serl_suite.networks.encoder_config import EncoderConfig
from serl_suite.networks.ensemble import EnsembleMLP
from serl_suite.networks.host import check_device
from serl_suite.networks.weights import WeightsInfo, encode_weights
from serl_suite.nodes.pretrain_pictures import Pairs

__all__ = ["PretrainConfig", "Progress", "pretrain", "train_backbone"]

Progress = Callable[[int, float], None]
"""Is told how many updates were made, and the last one's loss."""
EMBEDDINGS = 8
"""Weighted sums over space of each feature map, as in an agent's encoder."""
READER_WIDTH = 256
COLOURS = 3
FURTHEST = 5.0
"""Motions are cut off at so many standard deviations: where one is far out, little else would count."""
SHIFT_SHARE = 16
"""Pictures are shifted by up to this part of their side, as agents will shift them."""
RAMP = 50
"""Updates over which the learning rate rises; from there it falls along a cosine to 0."""
SIDED = ("cnn", "dilated")
"""The backbones whose layers depend on the side of the pictures."""


class PretrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a backbone is trained without labels."""

    backbone: str = "cnn"
    """cnn, dilated, resnet10 or resnet18."""
    side: int = 128
    """Of the square pictures [pixels]."""
    updates: int = 800
    """Gradient steps."""
    batch: int = 64
    """Pairs of pictures in each."""
    learning_rate: float = 1e-3
    """At its highest."""
    seed: int = 0
    """Of weights, batches and shifts."""
    device: str = "cpu"
    """Of torch."""


def pretrain(config: PretrainConfig, pairs: Pairs, out: Path, progress: Progress, stop: Event) -> bool:
    """Trains a backbone and writes its weights.

    Args:
        config: How.
        pairs: Pictures with the side that `config` says.
        out: File for the weights.
        progress: Called after each update.
        stop: Ends the training; nothing is written then.

    Returns:
        Whether it was trained to its end, and written.

    Raises:
        BadEncoder: There is no such backbone.
        DeviceUnavailable: There is no such device.
        DiskFull: The file cannot be written.
    """
    start = time.monotonic()
    backbone = train_backbone(config, pairs, progress, stop)
    if backbone is None:
        return False
    info = WeightsInfo(
        backbone=config.backbone,
        side=config.side if config.backbone in SIDED else None,
        trained={
            "objective": "inverse dynamics",
            "side": config.side,
            "updates": config.updates,
            "batch": config.batch,
            "learning_rate": config.learning_rate,
            "seed": config.seed,
            "seconds": round(time.monotonic() - start, 1),
        },
        source=pairs.counts(),
    )
    write_durably(out, encode_weights(backbone, info))
    return True


def train_backbone(config: PretrainConfig, pairs: Pairs, progress: Progress, stop: Event) -> nn.Module | None:
    """The trained backbone; None where it was stopped. See `pretrain`."""
    check_device(config.device)
    generator = torch.Generator().manual_seed(config.seed)
    backbone = make_backbone(EncoderConfig(backbone=config.backbone), config.side, generator)
    student = _Student(backbone, pairs, config.side, generator).to(config.device)
    optimiser = torch.optim.Adam(student.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config.updates))
    for update in range(1, config.updates + 1):
        loss = student.loss(torch.randint(len(pairs.eyes), (config.batch,), generator=generator))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress(update, loss.item())
        if stop.is_set():
            return None
    return backbone


class _Student(nn.Module):
    """A backbone, and for each eye one who reads motion off it."""

    middle: Tensor
    spread: Tensor
    """Mean and standard deviation of each eye's motions. Shape: (eyes, motion_dim)"""

    def __init__(self, backbone: nn.Module, pairs: Pairs, side: int, generator: torch.Generator) -> None:
        super().__init__()
        features, motion_dim = feature_shape(backbone, side), pairs.motions.shape[1]
        self.backbone = backbone
        self.readers = nn.ModuleList(_MotionReader(features, motion_dim, generator) for _ in pairs.names)
        motions = [pairs.motions[pairs.eyes == eye] for eye in range(len(pairs.names))]
        self.register_buffer("middle", torch.stack([each.mean(0) for each in motions]))
        self.register_buffer("spread", torch.stack([each.std(0, unbiased=False) for each in motions]) + 1e-6)
        self._pairs, self._side, self._generator = pairs, side, generator

    def loss(self, drawn: Tensor) -> Tensor:
        """Mean square error of the motions of the pairs with these numbers. Shape: (batch,) -> ()"""
        pairs, device = self._pairs, self.middle.device
        before, after = (seen[drawn].to(device) for seen in (pairs.before, pairs.after))
        both = _shifted(torch.cat([before, after], -1).float(), self._side // SHIFT_SHARE, self._generator)
        maps = self.backbone(torch.cat([both[..., :COLOURS], both[..., COLOURS:]]))
        maps_before, maps_after = maps.chunk(2)
        eyes = pairs.eyes[drawn].to(device)
        motions = (pairs.motions[drawn].to(device) - self.middle[eyes]) / self.spread[eyes]
        told = self._told(maps_before, maps_after, eyes)
        return (told - motions.clamp(-FURTHEST, FURTHEST)).square().mean()

    def _told(self, before: Tensor, after: Tensor, eyes: Tensor) -> Tensor:
        """Each pair's motion, read by whoever belongs to its eye. Shape: (n, motion_dim)"""
        told = torch.zeros(len(eyes), self.spread.shape[1], device=eyes.device)
        for eye, reader in enumerate(self.readers):
            of_eye = (eyes == eye).nonzero().squeeze(1)
            if len(of_eye):
                told = told.index_copy(0, of_eye, reader(before[of_eye], after[of_eye]))
        return told


class _MotionReader(nn.Module):
    """Reads a motion off the feature maps before and after it, by one eye.

    Args:
        features: (height, width, channels) of the maps.
        motion_dim: How many numbers tell of it.
        generator: Draws the weights; on the CPU.
    """

    def __init__(self, features: tuple[int, int, int], motion_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        height, width, channels = features
        cells = height * width
        self.spatial = nn.Parameter(
            torch.randn(cells, channels, EMBEDDINGS, generator=generator) * (cells * channels) ** -0.5
        )
        self.reader = EnsembleMLP(
            1, 2 * channels * EMBEDDINGS, (READER_WIDTH,), motion_dim, generator=generator, layer_norm=True
        )

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Shape: (n, height, width, channels) twice -> (n, motion_dim)"""
        maps = torch.stack([before, after]).float().flatten(2, 3)
        embedded = torch.einsum("pnsc,sce->npce", maps, self.spatial)
        told: Tensor = self.reader(embedded.flatten(1))[0]
        return told


def _shifted(pictures: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each picture moved by up to `most` pixels in y and x, its edge repeated. Shape: (n, height, width, channels)"""
    n, height, width, _ = pictures.shape
    padded = pad(pictures.permute(0, 3, 1, 2), (most,) * 4, mode="replicate")
    offsets = torch.randint(2 * most + 1, (n, 2, 1), generator=generator)
    rows = (offsets[:, 0] + torch.arange(height)).to(pictures.device)
    columns = (offsets[:, 1] + torch.arange(width)).to(pictures.device)
    each = torch.arange(n, device=pictures.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]]


def _rate(step: int, updates: int) -> float:
    return min(1.0, (step + 1) / RAMP) * 0.5 * (1.0 + math.cos(math.pi * step / updates))
