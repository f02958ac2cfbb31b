"""The arrays of a replay, on the device that trains."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Column", "ImageColumn"]


class Column:
    """A fixed-size array of rows on a device. Host memory is touched only when a row is first written."""

    def __init__(self, rows: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self._host: NDArray[Any] | None = None
        if device.type == "cpu":
            self._host = np.zeros((rows, *shape), np.uint8 if dtype == torch.uint8 else np.float32)
            self._rows = torch.from_numpy(self._host)
        else:
            self._rows = torch.zeros((rows, *shape), dtype=dtype, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes reserved."""
        return self._rows.numel() * self._rows.element_size()

    @property
    def host(self) -> NDArray[Any] | None:
        """The rows themselves, where the device is the CPU."""
        return self._host

    def put(self, row: int, value: NDArray[np.float32] | NDArray[np.uint8]) -> None:
        """Writes one row."""
        if self._host is not None:
            self._host[row] = value
        else:
            self._rows[row].copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def take(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """A copy of the given rows. Shape: (len(rows), *shape)"""
        return self.gather(torch.from_numpy(rows).to(self._rows.device))

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The same for rows on the device."""
        return self._rows.index_select(0, rows)


class ImageColumn(Column):
    """uint8 images of shape (height, width, channels), read back with a random shift of up to `shift` pixels.

    A shifted image is a crop of the image padded by repetition of its edge (DrQ, arXiv 2004.13649).
    """

    def __init__(self, rows: int, shape: tuple[int, ...], shift: int, device: torch.device) -> None:
        super().__init__(rows, shape, torch.uint8, device)
        self._shift = shift

    def take_shifted(self, rows: NDArray[np.int64], rng: np.random.Generator) -> torch.Tensor:
        """The given rows, each with a shift of its own. Shape: (len(rows), height, width, channels)"""
        offsets = rng.integers(-self._shift, self._shift + 1, size=(len(rows), 2))
        if self._host is not None:
            from serl_suite.data.shift import gather_shifted  # numba is loaded only where there are images

            out = torch.empty((len(rows), *self._rows.shape[1:]), dtype=torch.uint8)
            gather_shifted(self._host, rows, offsets, out.numpy())
            return out
        return self._gather_on_device(torch.from_numpy(rows), torch.from_numpy(offsets))

    def _gather_on_device(self, rows: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        device, (height, width) = self._rows.device, self._rows.shape[1:3]
        rows, offsets = rows.to(device, non_blocking=True), offsets.to(device, non_blocking=True)
        y = (torch.arange(height, device=device) + offsets[:, :1]).clamp_(0, height - 1)
        x = (torch.arange(width, device=device) + offsets[:, 1:]).clamp_(0, width - 1)
        return self._rows[rows[:, None, None], y[:, :, None], x[:, None, :]]
