"""Training a backbone without labels: it learns to describe what is unusual in a picture, and where.

From its feature maps a light decoder has to paint how each picture differs from the mean picture of its eye (camera),
from every cell of the maps the pixels that it stands for. Pixels count by how far they are from the mean: a small
object that moves counts more than the table behind it. The decoder is thrown away.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_shuffle

from serl_suite.data.durable import write_durably
from serl_suite.networks.backbone import feature_shape, make_backbone
from serl_suite.networks.encoder_config import BadEncoder, EncoderConfig
from serl_suite.networks.host import check_device
from serl_suite.networks.pixels import convolution
from serl_suite.networks.weights import WeightsInfo, encode_weights
from serl_suite.nodes.pretrain_pictures import Pictures

__all__ = ["PretrainConfig", "Progress", "pretrain", "train_backbone"]

Progress = Callable[[int, float], None]
"""Is told how many updates were made, and the last one's loss."""
FLOOR = 1.0
"""What every pixel counts, whatever it shows."""
CONTRAST = 10.0
"""What a pixel counts in addition that differs from the mean picture as much as the average pixel."""
SHIFT_SHARE = 16
"""Pictures are shifted by up to this part of their side, as agents will shift them."""
RAMP = 50
"""Updates over which the learning rate rises; from there it falls along a cosine to 0."""
COLOURS = 3
SIDED = "cnn"
"""The backbone whose layers depend on the side of the pictures."""


class PretrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a backbone is trained without labels."""

    backbone: str = "cnn"
    """cnn, resnet10 or resnet18."""
    side: int = 128
    """Of the square pictures [pixels]."""
    updates: int = 2000
    """Gradient steps."""
    batch: int = 64
    """Pictures in each."""
    learning_rate: float = 2e-3
    """At its highest."""
    seed: int = 0
    """Of weights, batches and shifts."""
    device: str = "cpu"
    """Of torch."""


def pretrain(config: PretrainConfig, pictures: Pictures, out: Path, progress: Progress, stop: Event) -> bool:
    """Trains a backbone and writes its weights.

    Args:
        config: How.
        pictures: With the side that `config` says.
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
    backbone = train_backbone(config, pictures, progress, stop)
    if backbone is None:
        return False
    info = WeightsInfo(
        backbone=config.backbone,
        side=config.side if config.backbone == SIDED else None,
        trained={
            "objective": "reconstruction of what differs from the mean picture",
            "side": config.side,
            "updates": config.updates,
            "batch": config.batch,
            "learning_rate": config.learning_rate,
            "seed": config.seed,
            "seconds": round(time.monotonic() - start, 1),
        },
        source=pictures.counts(),
    )
    write_durably(out, encode_weights(backbone, info))
    return True


def train_backbone(
    config: PretrainConfig, pictures: Pictures, progress: Progress, stop: Event
) -> nn.Module | None:
    """The trained backbone; None where it was stopped. See `pretrain`."""
    check_device(config.device)
    generator = torch.Generator().manual_seed(config.seed)
    backbone = make_backbone(EncoderConfig(backbone=config.backbone), config.side, generator)
    painter = Painter(feature_shape(backbone, config.side), config.side, generator).to(config.device)
    backbone.to(config.device)
    means = _mean_pictures(pictures).to(config.device)
    optimiser = torch.optim.Adam([*backbone.parameters(), *painter.parameters()], lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config.updates))
    for update in range(1, config.updates + 1):
        drawn = torch.randint(len(pictures.images), (config.batch,), generator=generator)
        seen = pictures.images[drawn].to(config.device)
        mean = means[pictures.eyes[drawn].to(config.device)]
        both = _shifted(torch.cat([seen.float(), mean], -1), config.side // SHIFT_SHARE, generator)
        loss = reconstruction_loss(backbone, painter, both[..., :COLOURS], both[..., COLOURS:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress(update, loss.item())
        if stop.is_set():
            return None
    return backbone


class Painter(nn.Module):
    """Paints the pixels of each cell from its features alone; linear, so that the features hold what it paints in the
    plainest form.

    Args:
        features: (height, width, channels) of the maps.
        side: Of the square pictures [pixels]; a multiple of the maps' height and width.
        generator: Draws the weights; on the CPU.

    Raises:
        BadEncoder: The side is no such multiple.
    """

    def __init__(self, features: tuple[int, int, int], side: int, generator: torch.Generator) -> None:
        super().__init__()
        height, _, channels = features
        self.cell, rest = divmod(side, height)
        if rest:
            raise BadEncoder(
                f"pictures of {side} x {side} come to maps of {height} x {height}, which do not divide them; choose a "
                f"side of {height * self.cell} or {height * (self.cell + 1)}, or a power of 2"
            )
        self.weight = nn.Parameter(convolution(channels, COLOURS * self.cell**2, 1, generator))
        self.bias = nn.Parameter(torch.zeros(COLOURS * self.cell**2))

    def forward(self, maps: Tensor) -> Tensor:
        """Shape: (n, height', width', channels) -> (n, side, side, 3)"""
        x = conv2d(maps.float().permute(0, 3, 1, 2), self.weight, self.bias)
        return pixel_shuffle(x, self.cell).permute(0, 2, 3, 1)


def reconstruction_loss(backbone: nn.Module, painter: Painter, seen: Tensor, mean: Tensor) -> Tensor:
    """Weighted mean square of what is painted minus what differs from the mean picture.

    Shape: (n, side, side, 3), (n, side, side, 3) -> ()
    """
    difference = (seen - mean) / 255.0
    far = difference.abs().amax(-1, keepdim=True)
    weight = FLOOR + CONTRAST * far / (far.mean() + 1e-6)
    return (weight * (painter(backbone(seen)) - difference).square()).mean()


def _mean_pictures(pictures: Pictures) -> Tensor:
    """Of each eye. Shape: (eyes, side, side, 3), float32"""
    means = torch.zeros(len(pictures.names), *pictures.images.shape[1:])
    for index in range(len(pictures.names)):
        seen = pictures.images[pictures.eyes == index]
        if len(seen):
            means[index] = seen.float().mean(0)
    return means


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
