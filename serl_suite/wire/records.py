"""Records in an append-only file, readable up to the last whole one after a kill at any byte.

A record is CRC-32 and length (`<II`) of what follows; then the number of parts (`<H`), each part's size (`<I`),
the parts.
"""

import errno
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from serl_suite.errors import SerlError

__all__ = ["DiskFull", "Record", "RecordFile", "pack", "scan", "split", "unpack"]

Buffer = bytes | memoryview
HEAD = struct.Struct("<II")
COUNT = struct.Struct("<H")
FULL = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG])


class DiskFull(SerlError):
    """The file system takes no more; what was written before is whole."""


class Record(NamedTuple):
    """Where a record lies and what it holds."""

    start: int
    end: int
    parts: list[memoryview]


def pack(parts: Sequence[Buffer]) -> bytes:
    """The bytes of one record."""
    body = b"".join([COUNT.pack(len(parts)), struct.pack(f"<{len(parts)}I", *map(len, parts)), *parts])
    return HEAD.pack(zlib.crc32(body), len(body)) + body


def split(record: bytes) -> list[memoryview]:
    """The parts of a record fresh from `pack`, as views of it."""
    data = memoryview(record)
    (count,) = COUNT.unpack_from(data, HEAD.size)
    at = HEAD.size + COUNT.size + 4 * count
    parts = []
    for size in struct.unpack_from(f"<{count}I", data, HEAD.size + COUNT.size):
        parts.append(data[at : at + size])
        at += size
    return parts


def unpack(data: memoryview, start: int = 0) -> Record | None:
    """The record that begins at `start`; None where it is torn or damaged."""
    body = start + HEAD.size
    if body > len(data):
        return None
    crc, length = HEAD.unpack_from(data, start)
    end = body + length
    if length < COUNT.size or end > len(data) or zlib.crc32(data[body:end]) != crc:
        return None
    (count,) = COUNT.unpack_from(data, body)
    at = body + COUNT.size + 4 * count
    if at > end:
        return None
    parts = []
    for size in struct.unpack_from(f"<{count}I", data, body + COUNT.size):
        parts.append(data[at : at + size])
        at += size
    return Record(start, end, parts) if at == end else None


def scan(data: Buffer) -> Iterator[Record]:
    """Whole records from the beginning, up to the first that is torn or damaged."""
    view = memoryview(data)
    record = unpack(view)
    while record is not None:
        yield record
        record = unpack(view, record.end)


class RecordFile:
    """One append-only file of records. Not thread-safe.

    A write that fails part-way is taken back, so that the file holds whole records only.
    """

    def __init__(self, path: Path) -> None:
        """Opens or creates `path`; appending continues after its last byte (see `truncate`)."""
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.fd).st_size

    def append(self, record: bytes) -> int:
        """Writes a packed record at the end and returns its offset. It is in the page cache when this returns:
        it survives the death of this process, not of the machine (see `sync`).

        Raises: DiskFull.
        """
        start, written = self.size, 0
        try:
            while written < len(record):
                written += os.pwrite(self.fd, memoryview(record)[written:], start + written)
        except OSError as e:
            os.ftruncate(self.fd, start)
            if e.errno in FULL:
                raise DiskFull(
                    f"cannot write {len(record)} bytes to {self.path}: {e.strerror}; free space on that file "
                    "system (or raise the quota), nothing that was accepted before is lost"
                ) from e
            raise
        self.size = start + len(record)
        return start

    def read(self, start: int, length: int) -> memoryview:
        """`length` bytes at `start`."""
        return memoryview(os.pread(self.fd, length, start))

    def truncate(self, size: int) -> None:
        """Drops everything after `size` bytes."""
        os.ftruncate(self.fd, size)
        self.size = size

    def sync(self) -> None:
        """Returns when everything appended is on the disk itself."""
        os.fdatasync(self.fd)

    def close(self) -> None:
        os.close(self.fd)
