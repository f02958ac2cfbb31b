"""Memory that is there before it is written to.

The kernel hands out an array's pages when they are first touched, which stalls whoever touches them: for each 2 MiB by
0.2 ms, and by 5 ms in a virtual machine that never used them before (measured; an insert takes 10 us). A thread
touches them a little ahead of the writer; only so much more memory than was written is ever in use.
"""

import ctypes
import math
import mmap
import threading
from typing import Any

from numpy.typing import NDArray

__all__ = ["Prefault"]

MADV_POPULATE_WRITE = 23
"""Linux >= 5.14 (madvise(2)); changes no contents, so it may race with the writer. Older kernels refuse it, and
then the pages come when they are touched."""
AHEAD_BYTES = 64 * 1024 * 1024
PIECE_BYTES = 2 * 1024 * 1024
"""While the kernel is at a piece, nothing else in this process can map memory."""

_libc = ctypes.CDLL(None)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Prefault:
    """Keeps arrays that are written in step, row after row, touched up to `AHEAD_BYTES` ahead of the writer."""

    def __init__(self, arrays: list[NDArray[Any]]) -> None:
        self._arrays = arrays
        self._rows = len(arrays[0]) if arrays else 0
        row_bytes = sum(array.nbytes for array in arrays) / max(1, self._rows)
        self._chunk = math.ceil(AHEAD_BYTES / 2 / max(1.0, row_bytes))
        self._touched = 0
        self.reach(0)

    def reach(self, row: int) -> None:
        """The writer is at `row`: starts to touch the next rows where too few are touched. Does not wait for it."""
        if row + self._chunk < self._touched or self._touched >= self._rows:
            return
        start, self._touched = self._touched, min(self._rows, row + 2 * self._chunk)
        ahead = [array[start : self._touched] for array in self._arrays]
        threading.Thread(target=_touch, args=(ahead,), name="prefault", daemon=True).start()


def _touch(arrays: list[NDArray[Any]]) -> None:
    for array in arrays:
        first = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
        last = array.ctypes.data + array.nbytes
        for address in range(first, last, PIECE_BYTES):
            _libc.madvise(address, min(PIECE_BYTES, last - address), MADV_POPULATE_WRITE)
