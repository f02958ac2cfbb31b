"""Gather and random shift of images in one pass over the memory (host only)."""

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["gather_shifted"]


@numba.njit(cache=True, nogil=True)
def gather_shifted(
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    offsets: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None:
    """Writes `out[i, y, x] = images[rows[i], clip(y + offsets[i, 0]), clip(x + offsets[i, 1])]`.

    Args:
        images: Shape: (n, height, width, channels)
        rows: Shape: (m,)
        offsets: Shift of each image in y and x [pixels]. Shape: (m, 2)
        out: Shape: (m, height, width, channels)
    """
    height, width, channels = images.shape[1:]
    for i in range(rows.size):
        dy, dx = offsets[i]
        for y in range(height):
            line = images[rows[i], min(max(y + dy, 0), height - 1)].reshape(-1)
            target = out[i, y].reshape(-1)
            first, last = max(0, -dx), min(width, width - dx)  # the columns that the image covers
            target[first * channels : last * channels] = line[
                (first + dx) * channels : (last + dx) * channels
            ]
            for x in range(first):
                target[x * channels : (x + 1) * channels] = line[:channels]
            for x in range(last, width):
                target[x * channels : (x + 1) * channels] = line[(width - 1) * channels :]
