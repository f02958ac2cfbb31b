"""Random changes of pictures in training: shifts, and the light's brightness, contrast and hue."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from serl_suite.data.shift import gather_shifted
from serl_suite.rewards.config import ClassifierConfig

__all__ = ["gather_augmented", "recoloured", "turned_hue"]


def gather_augmented(
    pictures: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    config: ClassifierConfig,
    rng: np.random.Generator,
    device: torch.device,
) -> Tensor:
    """Rows of a camera's pictures, each changed by its own draw.

    Shape: (n, side, side, 3), (m,) -> (m, side, side, 3)
    """
    shift = config.shift
    out = np.empty((rows.size, *pictures.shape[1:]), np.uint8)
    gather_shifted(pictures, rows, rng.integers(-shift, shift + 1, (rows.size, 2)), out)
    draws = torch.from_numpy(rng.uniform(-1.0, 1.0, (3, rows.size)).astype(np.float32)).to(device)
    return recoloured(
        torch.from_numpy(out).to(device),
        brightness=config.brightness * draws[0],
        contrast=1.0 + config.contrast * draws[1],
        hue_rad=math.radians(config.hue_deg) * draws[2],
    )


def recoloured(pictures: Tensor, *, brightness: Tensor, contrast: Tensor, hue_rad: Tensor) -> Tensor:
    """Turns the hues, stretches about middle grey, and brightens; each picture by its own numbers.

    Args:
        pictures: Shape: (n, height, width, 3), uint8
        brightness: Added, as a share of white. Shape: (n,)
        contrast: Factor. Shape: (n,)
        hue_rad: Shape: (n,)

    Returns:
        Shape: (n, height, width, 3), uint8
    """
    colours = pictures.flatten(1, 2).float()
    mixed = torch.bmm(colours, contrast[:, None, None] * turned_hue(hue_rad).transpose(1, 2))
    offset = 127.5 * (1.0 - contrast) + 255.0 * brightness
    return (mixed + offset[:, None, None]).round_().clamp_(0, 255).to(torch.uint8).view(pictures.shape)


def turned_hue(angle_rad: Tensor) -> Tensor:
    """Matrices that turn colours about the grey axis, and leave grey as it is. Shape: (n,) -> (n, 3, 3)"""
    cos, sin = torch.cos(angle_rad)[:, None, None], torch.sin(angle_rad)[:, None, None]
    third = torch.full((3, 3), 1.0 / 3.0, device=angle_rad.device)
    skew = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=angle_rad.device)
    return cos * torch.eye(3, device=angle_rad.device) + (1.0 - cos) * third + sin * skew / math.sqrt(3.0)
