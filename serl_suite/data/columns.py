"""The arrays of a replay, on the device that trains."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Column", "FeatureColumn", "Features", "ImageColumn"]

HOST = torch.device("cpu")
STAGED = 32
"""Rows that may be on their way to a device before whoever brings the next one waits."""
HOST_DTYPES = {torch.uint8: np.uint8, torch.float32: np.float32, torch.bfloat16: np.uint16}
"""In which numpy reserves them: it touches no memory in advance, and does not know the last one."""


class _Staging:
    """Arrays on their way to a device: for a CUDA device through pinned memory, in turn, so that nobody waits for what
    the device is at."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self._on_host = device.type == "cpu"
        if self._on_host:
            return
        self._rows = torch.zeros((STAGED, *shape), dtype=dtype, pin_memory=True)
        self._host = self._rows.numpy()
        self._sent = [torch.cuda.Event() for _ in range(STAGED)]  # type: ignore[no-untyped-call]
        self._device, self._turn = device, 0

    def send(self, value: NDArray[Any], to: torch.Tensor) -> None:
        """Copies `value` in the order of the current stream."""
        if self._on_host:
            to.copy_(torch.from_numpy(np.ascontiguousarray(value)))
            return
        self._turn = (self._turn + 1) % STAGED
        sent = self._sent[self._turn]
        sent.synchronize()
        self._host[self._turn] = value
        to.copy_(self._rows[self._turn], non_blocking=True)
        sent.record(torch.cuda.current_stream(self._device))


class Column:
    """A fixed-size array of rows on a device. Host memory is touched only when a row is first written."""

    def __init__(self, rows: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self._host: NDArray[Any] | None = None
        if device.type == "cpu":
            self._host = np.zeros((rows, *shape), HOST_DTYPES[dtype])
            self._rows = torch.from_numpy(self._host).view(dtype)
        else:
            self._rows = torch.zeros((rows, *shape), dtype=dtype, device=device)
        self._prepare(shape, dtype, device)

    def _prepare(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        """Makes room for what `put` brings, a row each time."""
        self._staging = _Staging(shape, dtype, device)

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
            self._staging.send(value, self._rows[row])

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

    def draw_views(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """How far to shift each of `count` images in y and x. Shape: (count, 2)"""
        return rng.integers(-self._shift, self._shift + 1, size=(count, 2))

    def gather_views(
        self, rows: torch.Tensor, views: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The given rows, shifted as drawn, in `out` if given. Shapes: (n,), (n, 2) -> (n, height, width, channels)"""
        if self._host is None:
            return _placed(shifted(self._rows, rows, views), out)
        from serl_suite.data.shift import gather_shifted  # numba is loaded only where there are images

        if out is None:
            out = torch.empty((len(rows), *self._rows.shape[1:]), dtype=torch.uint8)
        gather_shifted(self._host, rows.numpy(), views.numpy(), out.numpy())
        return out


@dataclass(frozen=True)
class Features:
    """What a replay keeps in the place of images: a frozen network's features of a few random shifts of each."""

    extract: Callable[[torch.Tensor], torch.Tensor]
    """uint8 images (n, height, width, 3) on `device` to features (n, size) there."""
    size: int
    dtype: torch.dtype
    views: int
    """Shifts kept of each image."""
    seed: int
    """Of the shifts: the same images in the same order come to the same features."""
    device: torch.device = HOST
    """Where the network is."""


class FeatureColumn(Column):
    """Features of `views` random shifts of each image, of which reading takes one at random."""

    def __init__(
        self, rows: int, shape: tuple[int, ...], shift: int, device: torch.device, features: Features
    ) -> None:
        self._image_shape, self._shift, self._features = shape, shift, features
        self._rng = np.random.default_rng(features.seed)
        super().__init__(rows, (features.views, features.size), features.dtype, device)

    def _prepare(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        """Room for an image and its shifts, where the network is."""
        where, views = self._features.device, self._features.views
        self._image = torch.zeros(self._image_shape, dtype=torch.uint8, device=where)
        self._offsets = torch.zeros(views, 2, dtype=torch.int64, device=where)
        self._first = torch.zeros(views, dtype=torch.int64, device=where)
        self._staging = _Staging(self._image_shape, torch.uint8, where)
        self._staged_offsets = _Staging((views, 2), torch.int64, where)

    @property
    def host(self) -> None:
        """Nothing that numpy could write."""
        return None

    def put(self, row: int, value: NDArray[np.float32] | NDArray[np.uint8]) -> None:
        """Looks at an image once for good. Shape: (height, width, 3)"""
        offsets = self._rng.integers(-self._shift, self._shift + 1, size=(self._features.views, 2))
        self._staging.send(value, self._image)
        self._staged_offsets.send(offsets, self._offsets)
        views = shifted(self._image[None], self._first, self._offsets)
        with torch.no_grad():
            self._rows[row].copy_(self._features.extract(views))

    def draw_views(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Which of its shifts each of `count` images shows, and a zero. Shape: (count, 2)"""
        views = np.zeros((count, 2), np.int64)
        views[:, 0] = rng.integers(self._features.views, size=count)
        return views

    def gather_views(
        self, rows: torch.Tensor, views: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features of the given rows, as drawn, in `out` if given. Shapes: (n,), (n, 2) -> (n, size)"""
        return _placed(self._rows[rows, views[:, 0]], out)


def _placed(values: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    return values if out is None else out.copy_(values)


def shifted(images: torch.Tensor, rows: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """`out[i, y, x] = images[rows[i], clip(y + offsets[i, 0]), clip(x + offsets[i, 1])]`.

    Shapes: (n, height, width, channels), (m,), (m, 2) -> (m, height, width, channels)
    """
    device, (height, width) = images.device, images.shape[1:3]
    y = (torch.arange(height, device=device) + offsets[:, :1]).clamp(0, height - 1)
    x = (torch.arange(width, device=device) + offsets[:, 1:]).clamp(0, width - 1)
    return images[rows[:, None, None], y[:, :, None], x[:, None, :]]
