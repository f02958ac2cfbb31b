"""GroupNorm of channels-last maps on a GPU, with what follows it in a residual block, in one pass over the memory.

Importing this module needs triton.
"""

# What a kernel takes are pointers and numbers, which have no types in Python.
# ruff: noqa: ANN001, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["group_norm_relu"]

LINE = 64
"""Channels that a program reads side by side at least: a line of the cache, of which it would else waste a part."""
TILE = 8192
"""Numbers that a program holds at a time."""


def group_norm_relu(
    x: Tensor,
    norm: tuple[Tensor, Tensor],
    groups: int,
    eps: float,
    other: Tensor | None = None,
    other_norm: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """`relu(group_norm(x))`, `relu(group_norm(x) + other)` or `relu(group_norm(x) + group_norm(other))`.

    Args:
        x: Channels last, a power of two of them. Shape: (n, channels, height, width)
        norm: Gain and shift, float32. Shape of each: (channels,)
        other: As x.
        other_norm: Gain and shift for the other.

    Returns: As x.
    """
    add, other = other is not None, x if other is None else other
    x, other = (maps.contiguous(memory_format=torch.channels_last) for maps in (x, other))
    n, channels, height, width = x.shape
    pixels = height * width
    y = torch.empty_like(x)
    piece = min(channels, max(channels // groups, LINE))
    block = min(triton.next_power_of_2(pixels), TILE // piece)
    _group_norm_relu[(n, channels // piece)](
        x, *norm, other, *(other_norm or norm), y, eps,
        pixels, block, channels, piece, channels // groups, add, other_norm is not None,
        num_warps=max(1, block * piece // 1024),
    )  # fmt: skip
    return y


@triton.jit
def _group_norm_relu(
    x, gain, shift, other, other_gain, other_shift, y, eps, PIXELS: tl.constexpr, BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr, PIECE: tl.constexpr, WIDTH: tl.constexpr, ADD: tl.constexpr, ADD_NORMED: tl.constexpr,
):  # fmt: skip
    """Arrays (n, PIXELS, CHANNELS); a program does PIECE channels, in groups of WIDTH, of one n, BLOCK pixels at once.

    It reads them twice, the second time from the cache, for they are more than its registers hold.
    """
    pixel = tl.arange(0, BLOCK)[:, None]
    channel = tl.program_id(1) * PIECE + tl.arange(0, PIECE)
    at = tl.program_id(0).to(tl.int64) * (PIXELS * CHANNELS) + pixel * CHANNELS + channel[None, :]
    slope, constant = _line(
        x + at, gain + channel, shift + channel, eps, PIXELS, BLOCK, CHANNELS, PIECE, WIDTH
    )
    if ADD_NORMED:
        other_slope, other_constant = _line(
            other + at,
            other_gain + channel,
            other_shift + channel,
            eps,
            PIXELS,
            BLOCK,
            CHANNELS,
            PIECE,
            WIDTH,
        )
        constant += other_constant
    for first in range(0, PIXELS, BLOCK):
        inside = pixel < PIXELS - first
        v = tl.load(x + at + first * CHANNELS, mask=inside, other=0.0).to(tl.float32) * slope + constant
        if ADD:
            r = tl.load(other + at + first * CHANNELS, mask=inside, other=0.0).to(tl.float32)
            if ADD_NORMED:
                r *= other_slope
            v += r
        tl.store(y + at + first * CHANNELS, tl.maximum(v, 0.0).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _line(
    x, gain, shift, eps, PIXELS: tl.constexpr, BLOCK: tl.constexpr, CHANNELS: tl.constexpr, PIECE: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Slope and constant (1, PIECE) that normalise the channels at x, which are in groups of WIDTH.

    From sums of numbers and squares, in one pass: what their difference loses in float32 is less than what bfloat16
    has lost of the numbers before.
    """
    pixel = tl.arange(0, BLOCK)[:, None]
    total = tl.zeros((BLOCK, PIECE), tl.float32)
    squares = tl.zeros((BLOCK, PIECE), tl.float32)
    for first in range(0, PIXELS, BLOCK):
        v = tl.load(x + first * CHANNELS, mask=pixel < PIXELS - first, other=0.0).to(tl.float32)
        total += v
        squares += v * v
    mean = _group_sum(total, PIECE, WIDTH) / (PIXELS * WIDTH)
    variance = _group_sum(squares, PIECE, WIDTH) / (PIXELS * WIDTH) - mean * mean
    slope = tl.rsqrt(tl.maximum(variance, 0.0) + eps) * tl.load(gain)
    return slope[None, :], (tl.load(shift) - mean * slope)[None, :]


@triton.jit
def _group_sum(v, PIECE: tl.constexpr, WIDTH: tl.constexpr):
    """(pixels, PIECE) summed over pixels and groups of WIDTH channels: to (PIECE), the same for all of a group."""
    groups: tl.constexpr = PIECE // WIDTH
    total = tl.sum(tl.reshape(tl.sum(v, axis=0), (groups, WIDTH)), axis=1)
    return tl.reshape(tl.broadcast_to(total[:, None], (groups, WIDTH)), (PIECE,))
