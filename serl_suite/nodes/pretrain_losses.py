"""What a backbone is asked when there are no labels; who asks is thrown away afterwards.

- How did the state change between two pictures, and by which action? To tell, it has to know where everything was.
- What does half a picture that is hidden look like? (Masked autoencoder, He et al. 2022, arXiv 2111.06377.) Of each
  picture only its difference from the mean picture of its eye is asked, and pixels count by how far they are from it: a
  small object that moves counts more than the table behind it.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_shuffle, relu

from serl_suite.networks.encoder_config import BadEncoder
from serl_suite.networks.ensemble import EnsembleMLP
from serl_suite.networks.pixels import convolution

__all__ = ["COLOURS", "MotionReader", "Painter", "reconstruction_loss", "shifted"]

COLOURS = 3
EMBEDDINGS = 8
"""Weighted sums over space of each feature map, as in an agent's encoder."""
READER_WIDTH = 256
PAINTER_WIDTH = 64
HIDDEN = 0.5
"""Share of the cells that are hidden behind grey."""
GREY = 127.5
FLOOR = 1.0
"""What every pixel counts, whatever it shows."""
CONTRAST = 10.0
"""What a pixel counts in addition that differs from the mean picture as much as the average pixel."""


class MotionReader(nn.Module):
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


class Painter(nn.Module):
    """Paints the pixels of each cell from its features and those of the cells around it.

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
        pixels = COLOURS * self.cell**2
        self.around = nn.Parameter(convolution(channels, PAINTER_WIDTH, 3, generator))
        self.paint = nn.Parameter(convolution(PAINTER_WIDTH, pixels, 1, generator))
        self.around_bias, self.paint_bias = (
            nn.Parameter(torch.zeros(PAINTER_WIDTH)),
            nn.Parameter(torch.zeros(pixels)),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Shape: (n, height', width', channels) -> (n, side, side, 3)"""
        x = relu(conv2d(maps.float().permute(0, 3, 1, 2), self.around, self.around_bias, padding=1))
        painted: Tensor = pixel_shuffle(conv2d(x, self.paint, self.paint_bias), self.cell)
        return painted.permute(0, 2, 3, 1)


def reconstruction_loss(
    backbone: nn.Module, painter: Painter, seen: Tensor, mean: Tensor, generator: torch.Generator
) -> Tensor:
    """Weighted mean square of what is painted minus what differs from the mean picture.

    Shape: (n, side, side, 3), (n, side, side, 3) -> ()
    """
    difference = (seen - mean) / 255.0
    far = difference.abs().amax(-1, keepdim=True)
    weight = FLOOR + CONTRAST * far / (far.mean() + 1e-6)
    painted = painter(backbone(_masked(seen, painter.cell, generator)))
    loss: Tensor = (weight * (painted - difference).square()).mean()
    return loss


def shifted(pictures: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each picture moved by up to `most` pixels in y and x, its edge repeated. Shape: (n, height, width, channels)"""
    n, height, width, _ = pictures.shape
    padded = pad(pictures.permute(0, 3, 1, 2), (most,) * 4, mode="replicate")
    offsets = torch.randint(2 * most + 1, (n, 2, 1), generator=generator)
    rows = (offsets[:, 0] + torch.arange(height)).to(pictures.device)
    columns = (offsets[:, 1] + torch.arange(width)).to(pictures.device)
    each = torch.arange(n, device=pictures.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]]


def _masked(pictures: Tensor, cell: int, generator: torch.Generator) -> Tensor:
    """Each picture with about `HIDDEN` of its cells grey. Shape: (n, side, side, 3)"""
    n, side = pictures.shape[0], pictures.shape[1]
    cells = torch.rand(n, side // cell, side // cell, 1, generator=generator) < HIDDEN
    hidden = cells.repeat_interleave(cell, 1).repeat_interleave(cell, 2).to(pictures.device)
    return pictures.masked_fill(hidden, GREY)
