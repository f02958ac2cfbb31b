"""Training a backbone without labels, on what `pretrain_losses` asks; its weights become a file."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import msgspec
import torch
from torch import Tensor, nn

from serl_suite.data.durable import write_durably
from serl_suite.networks.backbone import feature_shape, make_backbone
from serl_suite.networks.encoder_config import EncoderConfig
from serl_suite.networks.host import check_device
from serl_suite.networks.weights import WeightsInfo, encode_weights
from serl_suite.nodes.pretrain_losses import COLOURS, MotionReader, Painter, reconstruction_loss, shifted
from serl_suite.nodes.pretrain_pictures import Pairs

__all__ = ["PretrainConfig", "Progress", "pretrain", "train_backbone"]

Progress = Callable[[int, float], None]
"""Is told how many updates were made, and the last one's loss."""
PAINTING = 1.0
"""What painting counts beside reading the motion."""
FURTHEST = 5.0
"""Motions are cut off at so many standard deviations: forces jump at a contact."""
LEAST = 1e-3
"""Square error from which on a number counts no more for being told better."""
SHIFT_SHARE = 16
"""Pictures are shifted by up to this part of their side, as agents will shift them."""
RAMP = 50
"""Updates over which the learning rate rises; from there it falls along a cosine to 0."""
SIDED = "cnn"
"""The backbone whose layers depend on the side of the pictures."""


class PretrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a backbone is trained without labels."""

    backbone: str = "cnn"
    """cnn, resnet10 or resnet18."""
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
        BadEncoder: There is no such backbone, or the side does not suit it.
        DeviceUnavailable: There is no such device.
        DiskFull: The file cannot be written.
    """
    start = time.monotonic()
    backbone = train_backbone(config, pairs, progress, stop)
    if backbone is None:
        return False
    info = WeightsInfo(
        backbone=config.backbone,
        side=config.side if config.backbone == SIDED else None,
        trained={
            "objective": "inverse dynamics, masked autoencoder",
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
    """A backbone and who asks it: for each eye one that reads motion, and a painter for all."""

    means: Tensor
    """Mean picture of each eye. Shape: (eyes, side, side, 3)"""
    middle: Tensor
    spread: Tensor
    """Mean and standard deviation of each eye's motions. Shape: (eyes, motion_dim)"""

    def __init__(self, backbone: nn.Module, pairs: Pairs, side: int, generator: torch.Generator) -> None:
        super().__init__()
        features, motion_dim = feature_shape(backbone, side), pairs.motions.shape[1]
        self.backbone = backbone
        self.painter = Painter(features, side, generator)
        self.readers = nn.ModuleList(MotionReader(features, motion_dim, generator) for _ in pairs.names)
        of_eyes = [pairs.eyes == eye for eye in range(len(pairs.names))]
        self.register_buffer("means", torch.stack([pairs.before[each].float().mean(0) for each in of_eyes]))
        motions = [pairs.motions[each] for each in of_eyes]
        self.register_buffer("middle", torch.stack([each.mean(0) for each in motions]))
        self.register_buffer("spread", torch.stack([each.std(0, unbiased=False) for each in motions]) + 1e-6)
        self._pairs, self._side, self._generator = pairs, side, generator

    def loss(self, drawn: Tensor) -> Tensor:
        """Of the pairs with these numbers. Shape: (batch,) -> ()"""
        pairs, device = self._pairs, self.means.device
        before, after = (seen[drawn].to(device).float() for seen in (pairs.before, pairs.after))
        eyes = pairs.eyes[drawn].to(device)
        moved = shifted(
            torch.cat([before, after, self.means[eyes]], -1), self._side // SHIFT_SHARE, self._generator
        )
        before, after, mean = moved.unflatten(-1, (3, COLOURS)).unbind(-2)  # type: ignore[no-untyped-call]
        maps = self.backbone(torch.cat([before, after]))
        motions = (pairs.motions[drawn].to(device) - self.middle[eyes]) / self.spread[eyes]
        motions = motions.clamp(-FURTHEST, FURTHEST)
        maps_before, maps_after = maps.chunk(2)
        reading = self._reading_loss(maps_before, maps_after, motions, eyes)
        return reading + PAINTING * reconstruction_loss(
            self.backbone, self.painter, before, mean, self._generator
        )

    def _reading_loss(self, before: Tensor, after: Tensor, motions: Tensor, eyes: Tensor) -> Tensor:
        """Mean over the numbers of a motion of the logarithm of their mean square error, each eye for itself: what
        cannot be told, such as the noise of a force, hardly moves the backbone."""
        losses = []
        for eye, reader in enumerate(self.readers):
            of_eye = (eyes == eye).nonzero().squeeze(1)
            if len(of_eye):
                errors = reader(before[of_eye], after[of_eye]) - motions[of_eye]
                losses.append((errors.square().mean(0) + LEAST).log().mean() * len(of_eye))
        return torch.stack(losses).sum() / len(eyes)


def _rate(step: int, updates: int) -> float:
    return min(1.0, (step + 1) / RAMP) * 0.5 * (1.0 + math.cos(math.pi * step / updates))
