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


def group_norm_relu(
    x: Tensor,
    norm: tuple[Tensor, Tensor],
    groups: int,
    eps: float,
    other: Tensor | None = None,
    other_norm: tuple[Tensor, Tensor] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """`relu(group_norm(x))`, `relu(group_norm(x) + other)` or `relu(group_norm(x) + group_norm(other))`.

    Args:
        x: Channels last; channels of a group a power of two. Shape: (n, channels, height, width)
        norm: Gain and shift, float32. Shape of each: (channels,)
        other: As x.
        other_norm: Gain and shift for the other.
        out: Where to write, in place of a new array. As x.

    Returns: As x.
    """
    add, other = other is not None, x if other is None else other
    x, other = (maps.contiguous(memory_format=torch.channels_last) for maps in (x, other))
    n, channels, height, width = x.shape
    pixels = height * width
    y = torch.empty_like(x) if out is None else out
    size = pixels * channels // groups
    _group_norm_relu[(n, groups)](
        x, *norm, other, *(other_norm or norm), y, eps,
        pixels, triton.next_power_of_2(pixels), channels, channels // groups, add, other_norm is not None,
        num_warps=16 if size > 8192 else 8 if size > 4096 else 4,
    )  # fmt: skip
    return y


@triton.jit
def _group_norm_relu(
    x, gain, shift, other, other_gain, other_shift, y, eps, PIXELS: tl.constexpr, BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ADD: tl.constexpr, ADD_NORMED: tl.constexpr,
):  # fmt: skip
    """Arrays (n, PIXELS, CHANNELS); a program does one group of WIDTH channels of one n, held in registers. BLOCK is a
    power of two, at least PIXELS.
    """
    pixel = tl.arange(0, BLOCK)[:, None]
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)[None, :]
    at = tl.program_id(0).to(tl.int64) * (PIXELS * CHANNELS) + pixel * CHANNELS + channel
    inside = pixel < PIXELS
    v = _normed(
        tl.load(x + at, mask=inside, other=0.0), gain + channel, shift + channel, eps, inside, PIXELS * WIDTH
    )
    if ADD:
        r = tl.load(other + at, mask=inside, other=0.0)
        if ADD_NORMED:
            r = _normed(r, other_gain + channel, other_shift + channel, eps, inside, PIXELS * WIDTH)
        v += r
    tl.store(y + at, tl.maximum(v, 0.0).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _normed(v, gain, shift, eps, inside, COUNT: tl.constexpr):
    """One group (pixels, channels) of COUNT numbers, normalised; zero outside."""
    v = v.to(tl.float32)
    mean = tl.sum(tl.sum(v, axis=1), axis=0) / COUNT
    centred = tl.where(inside, v - mean, 0.0)
    scale = tl.rsqrt(tl.sum(tl.sum(centred * centred, axis=1), axis=0) / COUNT + eps)
    return centred * (scale * tl.load(gain)) + tl.load(shift)
