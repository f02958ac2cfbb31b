"""First layers of a frozen ResNet on a GPU: from uint8 pictures to what the first residual block takes.

The output of the first convolution is the largest array of the whole network, so it is never written: the kernel that
computes it keeps the sums that GroupNorm needs and the maximum of three rows. That may come before the normalisation,
because the normalisation of a channel rises where its gain is positive; channels of negative gain are computed with
the opposite sign. Importing this module needs triton.
"""

# What a kernel takes are pointers and numbers, which have no types in Python.
# ruff: noqa: ANN001, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
import torch
import triton
import triton.language as tl
from torch import Tensor

from serl_suite.networks.pixels import MEAN, STD

__all__ = ["space_to_depth", "stem"]

CELL = 16
"""Channels of a cell of 2 x 2 pixels: their 12 colours and 4 zeros, so that it is read in whole 16-byte words."""
WIDTH = 64
"""Channels after the first convolution; also its 4 x 16 inputs along a row."""
ROWS, STRIPS, WARPS, STAGES = 32, 1, 4, 1
FEW, FEW_ROWS = 128, 4
"""Up to so many pictures, which would leave much of a GPU idle, a strip has so many rows."""


def space_to_depth(pictures: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Normalised pictures in cells of 2 x 2 pixels, with a border of zeros: two cells before, one after.

    Channel `(2 row + column) 3 + colour` of a cell.
    Shape: (n, height, width, 3), uint8, contiguous -> (n, height / 2 + 3, width / 2 + 3, 16)
    """
    n, height, width, _ = pictures.shape
    cells = torch.empty(n, height // 2 + 3, width // 2 + 3, CELL, dtype=dtype, device=pictures.device)
    scale = [1.0 / (255.0 * std) for std in STD]
    offset = [-mean / std for mean, std in zip(MEAN, STD, strict=True)]
    count = cells.shape[1] * cells.shape[2]
    _space_to_depth[(n, triton.cdiv(count, 256))](
        pictures, cells, *scale, *offset, height, width, 256, num_warps=4
    )
    return cells


def stem(
    cells: Tensor,
    weight: Tensor,
    gain: Tensor,
    shift: Tensor,
    groups: int,
    eps: float,
    config: tuple[int, int, int, int] | None = None,
) -> Tensor:
    """`max_pool(relu(group_norm(conv(pictures))))`: 7x7 with stride 2, then 3x3 with stride 2, as of any ResNet.

    Args:
        cells: From `space_to_depth`. Shape: (n, height / 2 + 3, width / 2 + 3, 16)
        weight: `w[out, colour, 2 i + row - 1, 2 j + column - 1]` at `[i, (j, cell's channel), out]`, times the sign
            of that output's gain. Shape: (4, 64, 64)
        gain: Of the normalisation, float32. Shape: (64,)
        shift: As gain.
        config: How the convolution is shared out: rows of the result a strip, strips a program, warps, stages. None
            for what was quickest.

    Returns: Shape: (n, 64, height / 4, width / 4), channels last
    """
    n, height, width = cells.shape[0], cells.shape[1] - 3, cells.shape[2] - 3
    rows, strips, warps, stages = config or (ROWS if n > FEW else FEW_ROWS, STRIPS, WARPS, STAGES)
    while height // 2 % (rows * strips):
        rows //= 2
    parts = height // 2 // (rows * strips)
    tall = torch.empty(n, height // 2, width, WIDTH, dtype=cells.dtype, device=cells.device)
    sums = torch.empty(n, parts, 2, WIDTH, dtype=torch.float32, device=cells.device)
    block = max(triton.next_power_of_2(width), 64 // strips)
    _convolution[(n, parts)](
        cells, weight, tall, sums, height, width, rows, strips, block, num_warps=warps, num_stages=stages
    )
    out = torch.empty(n, height // 2, width // 2, WIDTH, dtype=cells.dtype, device=cells.device)
    pixels = height * width // 4
    _normalised_pool[(n, triton.cdiv(pixels, 128))](
        tall, sums, gain, shift, out, eps, height, width, groups, parts, triton.next_power_of_2(parts), 128,
        num_warps=8,
    )  # fmt: skip
    return out.permute(0, 3, 1, 2)


@triton.jit
def _space_to_depth(
    pictures, cells, red, green, blue, red_offset, green_offset, blue_offset, height: tl.constexpr, width: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A picture (height, width, 3) to (height / 2 + 3, width / 2 + 3, 16); a program writes BLOCK cells of it.

    All that depends on the channel alone or on the cell alone is computed for one of them only: with an index of its
    own for each number, the kernel would wait for its arithmetic and not for the memory.
    """
    across: tl.constexpr = width // 2 + 3
    count: tl.constexpr = (height // 2 + 3) * across
    n = tl.program_id(0).to(tl.int64)
    cell = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row, column = cell // across - 2, cell % across - 2
    inside = (row >= 0) & (row < height // 2) & (column >= 0) & (column < width // 2)
    channel = tl.arange(0, 16)
    colour = channel % 3
    scale = tl.where(colour == 0, red, tl.where(colour == 1, green, blue))[None, :]
    offset = tl.where(colour == 0, red_offset, tl.where(colour == 1, green_offset, blue_offset))[None, :]
    inside = inside[:, None] & (channel < 12)[None, :]
    x = pictures + n * (height * width * 3) + (row * (width * 6) + column * 6)[:, None]
    x = tl.load(x + (channel // 6 * (width * 3) + channel % 6)[None, :], mask=inside, other=0)
    y = tl.where(inside, x.to(tl.float32) * scale + offset, 0.0)
    to = cells + n * (count * 16) + cell[:, None] * 16 + channel[None, :]
    tl.store(to, y.to(cells.dtype.element_ty), mask=(cell < count)[:, None])


@triton.jit
def _convolution(
    cells, weight, tall, sums, height: tl.constexpr, width: tl.constexpr, ROWS: tl.constexpr, STRIPS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Convolution of a picture's cells (height + 3, width + 3, 16) with a weight (4, 64, 64), never written itself, and
    of it: the maximum of rows 2i - 1, 2i, 2i + 1 in tall (height / 2, width, 64), and sums (2, 64) of values and
    squares over the rows of this program, STRIPS times ROWS rows of tall.

    Strips lie beside one another in a product; BLOCK, a power of two, is a strip's share of it, at least width.
    """
    line: tl.constexpr = (width + 3) * 16
    n = tl.program_id(0).to(tl.int64)
    m = tl.arange(0, STRIPS * BLOCK)
    k = tl.arange(0, 64)
    column = m % BLOCK
    first = (tl.program_id(1) * STRIPS + m // BLOCK) * ROWS
    inside = (column < width)[:, None]
    w = weight + k[:, None] * 64 + k[None, :]
    w0, w1, w2, w3 = tl.load(w), tl.load(w + 4096), tl.load(w + 8192), tl.load(w + 12288)
    # Four cells of a row lie one after another, so that a row of the product is 64 numbers in a piece.
    x = cells + n * ((height + 3) * line) + (2 * first * line + column * 16)[:, None] + k[None, :]
    y = tall + n * (height // 2 * width * 64) + ((first * width + column) * 64)[:, None] + k[None, :]

    before = inside & (first > 0)[:, None]
    odd = tl.dot(tl.load(x - line, mask=before, other=0.0), w0)
    odd = tl.dot(tl.load(x, mask=before, other=0.0), w1, odd)
    odd = tl.dot(tl.load(x + line, mask=before, other=0.0), w2, odd)
    odd = tl.dot(tl.load(x + 2 * line, mask=before, other=0.0), w3, odd)
    above = tl.where((first > 0)[:, None], odd, float("-inf"))

    total = tl.zeros((STRIPS * BLOCK, 64), tl.float32)
    squares = tl.zeros((STRIPS * BLOCK, 64), tl.float32)
    for _ in range(ROWS):
        x0 = tl.load(x, mask=inside, other=0.0)
        x1 = tl.load(x + line, mask=inside, other=0.0)
        x2 = tl.load(x + 2 * line, mask=inside, other=0.0)
        x3 = tl.load(x + 3 * line, mask=inside, other=0.0)
        x4 = tl.load(x + 4 * line, mask=inside, other=0.0)
        even = tl.dot(x3, w3, tl.dot(x2, w2, tl.dot(x1, w1, tl.dot(x0, w0))))
        odd = tl.dot(x4, w3, tl.dot(x3, w2, tl.dot(x2, w1, tl.dot(x1, w0))))
        total += even + odd
        squares += even * even + odd * odd
        highest = tl.maximum(tl.maximum(above, even), odd)
        tl.store(y, highest.to(tall.dtype.element_ty), mask=inside)
        above = odd
        x += 2 * line
        y += width * 64
    s = sums + (n * tl.num_programs(1) + tl.program_id(1)) * 128 + k
    tl.store(s, tl.sum(total, axis=0))
    tl.store(s + 64, tl.sum(squares, axis=0))


@triton.jit
def _normalised_pool(
    tall, sums, gain, shift, out, eps, height: tl.constexpr, width: tl.constexpr, GROUPS: tl.constexpr,
    PARTS: tl.constexpr, PARTS_BLOCK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Maximum of columns 2j - 1, 2j, 2j + 1 of tall (height / 2, width, 64), normalised by sums (PARTS, 2, 64) over the
    whole convolution (height, width, 64), and ReLU, to out (height / 2, width / 2, 64). A program writes BLOCK pixels.
    """
    n = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, 64)
    part = tl.arange(0, PARTS_BLOCK)[:, None]
    s = sums + n * (PARTS * 128) + part * 128 + c[None, :]
    total = tl.sum(tl.load(s, mask=part < PARTS, other=0.0), axis=0)
    squares = tl.sum(tl.load(s + 64, mask=part < PARTS, other=0.0), axis=0)
    slope = tl.load(gain + c)
    sign = tl.where(slope < 0, -1.0, 1.0)
    count: tl.constexpr = height * width * (64 // GROUPS)
    mean = tl.sum(tl.reshape(total * sign, (GROUPS, 64 // GROUPS)), axis=1) / count
    variance = tl.sum(tl.reshape(squares, (GROUPS, 64 // GROUPS)), axis=1) / count - mean * mean
    scale = tl.rsqrt(tl.maximum(variance, 0.0) + eps)
    mean = tl.reshape(tl.broadcast_to(mean[:, None], (GROUPS, 64 // GROUPS)), (64,))
    scale = tl.reshape(tl.broadcast_to(scale[:, None], (GROUPS, 64 // GROUPS)), (64,))
    constant = tl.load(shift + c) - mean * scale * slope
    slope = scale * tl.abs(slope)

    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (pixel < height * width // 4)[:, None]
    x = tall + n * (height // 2 * width * 64) + (2 * pixel * 64)[:, None] + c[None, :]
    left = (pixel % (width // 2) > 0)[:, None]
    high = tl.load(x, mask=inside, other=0.0).to(tl.float32)
    high = tl.maximum(high, tl.load(x + 64, mask=inside, other=0.0).to(tl.float32))
    high = tl.maximum(high, tl.load(x - 64, mask=inside & left, other=float("-inf")).to(tl.float32))
    y = tl.maximum(high * slope[None, :] + constant[None, :], 0.0)
    o = out + n * (height * width // 4 * 64) + (pixel * 64)[:, None] + c[None, :]
    tl.store(o, y.to(out.dtype.element_ty), mask=inside)
