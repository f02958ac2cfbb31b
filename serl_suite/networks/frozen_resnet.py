"""A ResNet that is only looked through: the fast way of a frozen backbone on a GPU.

Convolutions are cuDNN's, in bfloat16 and channels last. What lies between them is written by hand, for it moves more
memory than they do: see `stem_kernels` and `groupnorm_kernels`. On a CPU the same layers in torch, in float32.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, group_norm, max_pool2d, pad, relu

from serl_suite.networks.encoder_config import BadEncoder
from serl_suite.networks.pixels import compute_dtype, imagenet_normalised
from serl_suite.networks.resnet import EPS, GROUPS, GroupNorm, ResidualBlock, ResNet

__all__ = ["SIDE_STEP", "FrozenResNet"]

SIDE_STEP = 4
"""Sides of pictures are multiples of it."""

Norm = tuple[Tensor, Tensor]


class FrozenResNet(nn.Module):
    """What a ResNet computes, without gradients, from a copy of its weights.

    Lives where the ResNet lives when it is made, for its numbers are of the type that this device computes in. It has
    no parameters and no state of its own.

    Args:
        resnet: Taken as it is now.
    """

    stem: Tensor
    stem_gain: Tensor
    stem_shift: Tensor

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        gain = resnet.stem_norm.gain.detach()
        weight = stem_of_cells(resnet.stem.detach()) * torch.where(gain < 0, -1.0, 1.0)
        self.register_buffer("stem", weight.to(compute_dtype(weight)).contiguous(), persistent=False)
        self.register_buffer("stem_gain", gain.clone(), persistent=False)
        self.register_buffer("stem_shift", resnet.stem_norm.shift.detach().clone(), persistent=False)
        self.blocks = nn.Sequential(
            *(_Block(block) for block in resnet.blocks if isinstance(block, ResidualBlock))
        )

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 pictures, whose sides are multiples of `SIDE_STEP`, to feature maps.

        Shape: (n, height, width, 3) -> (n, height', width', channels)

        Raises:
            BadEncoder: The sides are not.
        """
        height, width = pictures.shape[1:3]
        if height % SIDE_STEP or width % SIDE_STEP:
            raise BadEncoder(
                f"pictures of {height} x {width}; their sides must be multiples of {SIDE_STEP}: resize or crop them"
            )
        x = first_layers(pictures.contiguous(), self.stem, (self.stem_gain, self.stem_shift))
        maps: Tensor = self.blocks(x)
        return maps.permute(0, 2, 3, 1)


class _Block(nn.Module):
    """A residual block with weights in the type and layout that convolutions are quickest in."""

    first: Tensor
    second: Tensor
    shortcut: Tensor | None

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.stride = block.stride
        for name in ("first", "second", "shortcut"):
            weight = getattr(block, name)
            if weight is not None:
                weight = weight.detach().to(
                    compute_dtype(weight), copy=True, memory_format=torch.channels_last
                )
                self._keep(f"{name}_norm", getattr(block, f"{name}_norm"))
            self.register_buffer(name, weight, persistent=False)

    def _keep(self, name: str, norm: GroupNorm) -> None:
        self.register_buffer(f"{name}_gain", norm.gain.detach().clone(), persistent=False)
        self.register_buffer(f"{name}_shift", norm.shift.detach().clone(), persistent=False)

    def _norm(self, name: str) -> Norm:
        return getattr(self, f"{name}_norm_gain"), getattr(self, f"{name}_norm_shift")

    def forward(self, x: Tensor) -> Tensor:
        """Shape: as of `ResidualBlock`"""
        y = conv2d(x, self.first, stride=self.stride, padding=1)
        y = group_norm_relu(y, self._norm("first"))
        y = conv2d(y, self.second, padding=1)
        if self.shortcut is None:
            return group_norm_relu(y, self._norm("second"), x)
        x = conv2d(x, self.shortcut, stride=self.stride)
        return group_norm_relu(y, self._norm("second"), x, self._norm("shortcut"))


def stem_of_cells(weight: Tensor) -> Tensor:
    """A 7x7 kernel with stride 2 as a 4x4 kernel on cells of 2 x 2 pixels, one of zeros before it in each direction.

    Shape: (out, 3, 7, 7) -> (4, 4 cells of 16 channels, out)
    """
    cells = pad(weight, (1, 0, 1, 0)).view(len(weight), 3, 4, 2, 4, 2)
    cells = cells.permute(2, 4, 3, 5, 1, 0).flatten(2, 4)  # (row, column, pixels of a cell and colours, out)
    return pad(cells, (0, 0, 0, 4)).flatten(1, 2)


def first_layers(pictures: Tensor, weight: Tensor, norm: Norm) -> Tensor:
    """`max_pool(relu(group_norm(conv(pictures))))` with a weight from `stem_of_cells`, each output of which has been
    multiplied with the sign of its gain.

    Shape: (n, height, width, 3), uint8 -> (n, 64, height / 4, width / 4), channels last
    """
    if pictures.is_cuda:
        from serl_suite.networks import stem_kernels

        return stem_kernels.stem(stem_kernels.space_to_depth(pictures), weight, *norm, GROUPS, EPS)
    x = _cells(imagenet_normalised(pictures))
    kernel = (weight * torch.where(norm[0] < 0, -1.0, 1.0)).view(4, 4, 16, -1).permute(3, 2, 0, 1)
    x = relu(group_norm(conv2d(x, kernel), GROUPS, *norm, EPS))
    return max_pool2d(x, 3, stride=2, padding=1)


def _cells(x: Tensor) -> Tensor:
    """What `stem_kernels.space_to_depth` makes, channels first.

    Shape: (n, 3, height, width) -> (n, 16, height / 2 + 3, width / 2 + 3)
    """
    n, colours, height, width = x.shape
    x = x.reshape(n, colours, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
    return pad(x, (2, 1, 2, 1, 0, 4))


def group_norm_relu(
    x: Tensor, norm: Norm, other: Tensor | None = None, other_norm: Norm | None = None
) -> Tensor:
    """`relu(group_norm(x) + other)`, where there is an other; normalised too, where it has a norm.

    Shape: (n, channels, height, width) of all
    """
    if x.is_cuda:
        from serl_suite.networks import groupnorm_kernels

        return groupnorm_kernels.group_norm_relu(x, norm, GROUPS, EPS, other, other_norm)
    y = group_norm(x, GROUPS, *norm, EPS)
    if other is not None:
        y += other if other_norm is None else group_norm(other, GROUPS, *other_norm, EPS)
    return relu(y)
