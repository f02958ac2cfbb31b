"""Records in an append-only file, readable up to the last whole one after a kill at any byte.

A record is `<II` (checksum, length of all that follows), `<H` (number of parts), each part's size (`<I`), the
parts. The checksum is CRC-32 of what follows the length, in which a large part is represented by the sum of its
64-bit words: that finds a page that was never written, a seventh of the time that CRC-32 of an image takes.
"""

import errno
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from serl_suite.errors import SerlError

__all__ = ["FULL", "Buffer", "DiskFull", "Record", "RecordFile", "pack", "refuse_if_full", "scan", "unpack"]

Buffer = bytes | memoryview
HEAD = struct.Struct("<II")
COUNT = struct.Struct("<H")
SUM = struct.Struct("<Q")
SEQ = struct.Struct("<Q")
"""First part of a step's record in a spool and on the wire."""
LARGE_BYTES = 4096
FULL = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG])


class DiskFull(SerlError):
    """The file system takes no more; what was written before is whole."""


def refuse_if_full(error: OSError, what: str) -> None:
    """Raises: DiskFull, where that is what `error` says; `what` was to be done."""
    if error.errno in FULL:
        raise DiskFull(
            f"cannot {what}: {error.strerror}; free space on that file system (or raise the quota), nothing that was "
            "accepted before is lost"
        ) from error


class Record(NamedTuple):
    """Where a record lies and what it holds."""

    start: int
    end: int
    parts: list[memoryview]


def pack(parts: Sequence[Buffer]) -> list[Buffer]:
    """The pieces of one record, to be written one after the other; the parts themselves are not copied."""
    sizes = [len(part) for part in parts]
    table = COUNT.pack(len(sizes)) + struct.pack(f"<{len(sizes)}I", *sizes)
    return [HEAD.pack(_checksum(table, parts), len(table) + sum(sizes)) + table, *parts]


def unpack(data: memoryview, start: int = 0) -> Record | None:
    """The record that begins at `start`; None where it is torn or damaged."""
    body = start + HEAD.size
    if body + COUNT.size > len(data):
        return None
    checksum, length = HEAD.unpack_from(data, start)
    (count,) = COUNT.unpack_from(data, body)
    at, end = body + COUNT.size + 4 * count, body + length
    if at > end or end > len(data):
        return None
    table = data[body:at]
    parts = []
    for size in struct.unpack_from(f"<{count}I", table, COUNT.size):
        parts.append(data[at : at + size])
        at += size
    if at != end or _checksum(table, parts) != checksum:
        return None
    return Record(start, end, parts)


def scan(data: Buffer) -> Iterator[Record]:
    """Whole records from the beginning, up to the first that is torn or damaged."""
    view = memoryview(data)
    record = unpack(view)
    while record is not None:
        yield record
        record = unpack(view, record.end)


def _checksum(table: Buffer, parts: Sequence[Buffer]) -> int:
    crc = zlib.crc32(table)
    for part in parts:
        if len(part) < LARGE_BYTES:
            crc = zlib.crc32(part, crc)
        else:
            words = np.frombuffer(part, dtype="<u8", count=len(part) // 8)
            crc = zlib.crc32(SUM.pack(int(np.add.reduce(words))), crc)
            crc = zlib.crc32(part[8 * len(words) :], crc)
    return crc


class RecordFile:
    """One append-only file of records. Not thread-safe.

    A write that fails part-way is taken back: `size` counts whole records only.
    """

    def __init__(self, path: Path) -> None:
        """Opens or creates `path`; appending continues after `size`, its last byte."""
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.fd).st_size

    def append(self, record: Sequence[Buffer]) -> int:
        """Writes a packed record after `size` and returns its length. It is in the page cache when this returns:
        it survives the death of this process, not of the machine (see `sync`).

        Raises: DiskFull.
        """
        start, length = self.size, sum(map(len, record))
        try:
            written = os.pwritev(self.fd, record, start)
            if written < length:
                rest = memoryview(b"".join(record))
                while written < length:
                    written += os.pwrite(self.fd, rest[written:], start + written)
        except OSError as e:
            os.ftruncate(self.fd, start)
            refuse_if_full(e, f"write {length} bytes to {self.path}")
            raise
        self.size = start + length
        return length

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
