"""Files of records that are written through memory: a third of what writing through the kernel costs."""

import mmap
import os
from collections.abc import Sequence
from pathlib import Path

from serl_suite.wire.records import Buffer, pack_into, record_size, refuse_if_full

__all__ = ["Segment"]


class Segment:
    """A file of fixed size, filled with records from its beginning. Not thread-safe.

    Its space is reserved when it is made, so that a full disk is met then and not by a write to memory, which could
    only kill the process. Whoever reads the file must tell records of its former life by what they hold.
    """

    def __init__(self, path: Path, capacity: int | None = None) -> None:
        """Makes the file with `capacity` bytes, or opens it as it is.

        Raises: DiskFull.
        """
        self.path = path
        self.size = 0
        """Bytes of the records appended."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if capacity is not None:
                os.posix_fallocate(fd, 0, capacity)
            self.capacity = os.fstat(fd).st_size
            self._memory = memoryview(mmap.mmap(fd, self.capacity) if self.capacity else b"")
        except OSError as e:
            if capacity is not None:  # a file that was there holds steps
                path.unlink()
                refuse_if_full(e, f"reserve {capacity} bytes for {path}")
            raise
        finally:
            os.close(fd)

    def append(self, parts: Sequence[Buffer]) -> int:
        """Writes a record of `parts`, which must fit, and returns its length. It survives the death of this process,
        not of the machine."""
        start, length = self.size, record_size(parts)
        pack_into(self._memory, start, parts)
        self.size = start + length
        return length

    def read(self, start: int, length: int) -> memoryview:
        """`length` bytes at `start`, as they lie in the file: a later life of the segment will change them."""
        return self._memory[start : start + length]

    def contents(self) -> memoryview:
        """The whole file."""
        return self._memory

    def rewind(self, path: Path) -> None:
        """Renames the file and writes over it from the beginning: what lies there already costs no allocation."""
        self.path.rename(path)
        self.path, self.size = path, 0
