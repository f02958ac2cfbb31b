"""Records in an append-only file, readable up to the last whole one after a kill at any byte.

A record is `<II` (checksum, length of the body) and the body: `<H` (number of parts), each part's size (`<I`), the
parts, zeros up to a multiple of 8 bytes. The checksum is CRC-32 of the body; of a large one, CRC-32 of its
ends and of the sum of its 64-bit words: that finds a page that was never written, in a tenth of the time.
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

__all__ = [
    "FULL", "SEQ", "Buffer", "DiskFull", "Record", "RecordFile", "pack", "pack_into", "record_size", "refuse_if_full",
    "scan", "unpack",
]  # fmt: skip

Buffer = bytes | bytearray | memoryview
HEAD = struct.Struct("<II")
COUNT = struct.Struct("<H")
SUM = struct.Struct("<Q")
SEQ = struct.Struct("<Q")
"""First part of a step's record in a spool and on the wire."""
LARGE_BYTES = 4096
ENDS_BYTES = 512
ALIGNMENT = 8
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


def record_size(parts: Sequence[Buffer]) -> int:
    """Bytes of the record that holds `parts`."""
    return _aligned(HEAD.size + COUNT.size + 4 * len(parts) + sum(map(len, parts)))


def pack_into(memory: memoryview, start: int, parts: Sequence[Buffer]) -> None:
    """Writes a record to `start`, a multiple of 8; it is none until the last byte of it is there."""
    sizes = [len(part) for part in parts]
    table = COUNT.pack(len(sizes)) + struct.pack(f"<{len(sizes)}I", *sizes)
    body = at = start + HEAD.size
    for part in (table, *parts):
        end = at + len(part)
        memory[at:end] = part
        at = end
    end = _aligned(at)
    memory[at:end] = bytes(end - at)
    HEAD.pack_into(memory, start, _checksum(memory[body:end]), end - body)


def pack(parts: Sequence[Buffer]) -> bytearray:
    """A record."""
    record = bytearray(record_size(parts))
    pack_into(memoryview(record), 0, parts)
    return record


def unpack(data: memoryview, start: int = 0) -> Record | None:
    """The record that begins at `start`; None where it is torn or damaged."""
    body = start + HEAD.size
    if body + COUNT.size > len(data):
        return None
    checksum, length = HEAD.unpack_from(data, start)
    (count,) = COUNT.unpack_from(data, body)
    at, end = body + COUNT.size + 4 * count, body + length
    if at > end or end > len(data) or _checksum(data[body:end]) != checksum:
        return None
    parts = []
    for size in struct.unpack_from(f"<{count}I", data, body + COUNT.size):
        parts.append(data[at : at + size])
        at += size
    return Record(start, end, parts) if _aligned(at) == end else None


def scan(data: Buffer) -> Iterator[Record]:
    """Whole records from the beginning, up to the first that is torn or damaged."""
    view = memoryview(data)
    record = unpack(view)
    while record is not None:
        yield record
        record = unpack(view, record.end)


def _checksum(body: memoryview) -> int:
    if len(body) < LARGE_BYTES:
        return zlib.crc32(body)
    words = np.frombuffer(body, dtype="<u8", count=len(body) // 8)
    crc = zlib.crc32(SUM.pack(int(np.add.reduce(words))), zlib.crc32(body[:ENDS_BYTES]))
    return zlib.crc32(body[-ENDS_BYTES:], crc)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class RecordFile:
    """One append-only file of records. Not thread-safe.

    A write that fails part-way is taken back: `size` counts whole records only.
    """

    def __init__(self, path: Path) -> None:
        """Opens or creates `path`; appending continues after `size`, its last byte."""
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.fd).st_size

    def append(self, record: Buffer) -> int:
        """Writes a packed record after `size` and returns its length. It is in the page cache when this returns:
        it survives the death of this process, not of the machine (see `sync`).

        Raises: DiskFull.
        """
        start, rest = self.size, memoryview(record)
        try:
            while rest:
                rest = rest[os.pwrite(self.fd, rest, self.size + len(record) - len(rest)) :]
        except OSError as e:
            os.ftruncate(self.fd, start)
            refuse_if_full(e, f"write {len(record)} bytes to {self.path}")
            raise
        self.size = start + len(record)
        return len(record)

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
