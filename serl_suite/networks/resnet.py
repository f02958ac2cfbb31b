"""Residual networks with GroupNorm (He et al. 2016, arXiv 1512.03385; Wu and He 2018, arXiv 1803.08494).

GroupNorm depends on no other picture of a batch, so that features are the same in an actor, in a learner and in a
replay that keeps them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, group_norm, max_pool2d, relu

from serl_suite.networks.pixels import convolution, imagenet_normalised

__all__ = ["DEPTHS", "ResNet"]

DEPTHS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2)}
"""Residual blocks of each stage."""
WIDTHS = (64, 128, 256, 512)
GROUPS = 4
EPS = 1e-5


class ResNet(nn.Module):
    """7x7 convolution, max-pool, then four stages of residual blocks; a 128 x 128 picture comes to 4 x 4 x 512.

    Args:
        blocks: Of each stage.
        generator: Draws the weights; on the CPU.
    """

    def __init__(self, blocks: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.stem = nn.Parameter(convolution(3, WIDTHS[0], 7, generator))
        self.stem_norm = GroupNorm(WIDTHS[0])
        layers, width = [], WIDTHS[0]
        for stage, (count, wide) in enumerate(zip(blocks, WIDTHS, strict=True)):
            for i in range(count):
                layers.append(ResidualBlock(width, wide, 2 if stage and i == 0 else 1, generator))
                width = wide
        self.blocks = nn.ModuleList(layers)

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 pictures to feature maps. Shape: (n, height, width, 3) -> (n, height', width', channels)"""
        x = imagenet_normalised(pictures)
        x = conv2d(x, self.stem.to(x.dtype), stride=2, padding=3)
        x = max_pool2d(relu(self.stem_norm(x)), 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 2, 3, 1)


class ResidualBlock(nn.Module):
    """`relu(x + norm(conv(relu(norm(conv(x))))))`, with a 1x1 convolution on the first x where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, generator: torch.Generator) -> None:
        super().__init__()
        self.stride = stride
        self.first = nn.Parameter(convolution(inputs, outputs, 3, generator))
        self.first_norm = GroupNorm(outputs)
        self.second = nn.Parameter(convolution(outputs, outputs, 3, generator))
        self.second_norm = GroupNorm(outputs)
        self.shortcut: nn.Parameter | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Parameter(convolution(inputs, outputs, 1, generator))
            self.shortcut_norm = GroupNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (n, inputs, height, width) -> (n, outputs, height / stride, width / stride)"""
        dtype = x.dtype
        y = relu(self.first_norm(conv2d(x, self.first.to(dtype), stride=self.stride, padding=1)))
        y = self.second_norm(conv2d(y, self.second.to(dtype), padding=1))
        if self.shortcut is not None:
            x = self.shortcut_norm(conv2d(x, self.shortcut.to(dtype), stride=self.stride))
        return relu(x + y)


class GroupNorm(nn.Module):
    """Over `GROUPS` groups of channels; statistics in float32 whatever it computes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (n, channels, height, width)"""
        return group_norm(x.float(), GROUPS, self.gain, self.shift, EPS).to(x.dtype)
