"""The newest record from one process to another through shared memory, without a lock on either side.

A seqlock over a ring of slots: the writer fills the slot after the one it published last, then publishes its number.
A reader copies the newest slot and believes the copy only if number and checksum fit, so that whatever the memory
ordering of the machine, a torn copy is noticed and dropped. With several slots the writer may be interrupted in the
middle of one, for ever if it dies, and the reader still has the one before: neither ever waits for the other.
"""

import mmap
import os
import zlib
from typing import TypeVar, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Integers", "Mailbox", "Text", "make_record", "read_text", "write_text"]

SLOTS = 4
ATTEMPTS = 3
"""Copies that a reader makes before it goes on with what it had: the writer was faster each time."""
WORD = 8

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Text = npt.NDArray[np.uint8]

Record = TypeVar("Record", bound=tuple[npt.NDArray[np.generic], ...])


def make_record(kind: type[Record]) -> tuple[npt.NDArray[np.uint8], Record]:
    """One block of memory, and the record whose fields are views of it, all zero.

    Args:
        kind: A NamedTuple whose fields are `Annotated[Floats, n]` or another array type with its number of elements;
            a matrix has two numbers.
    """
    shapes = {name: get_args(hint) for name, hint in get_type_hints(kind, include_extras=True).items()}
    words = {name: _words(hint) for name, hint in shapes.items()}
    buffer = np.zeros(sum(words.values()) * WORD, dtype=np.uint8)
    views, start = [], 0
    for name, (array, *shape) in shapes.items():
        part = buffer[start : start + words[name] * WORD]
        views.append(part.view(_dtype(array)).reshape(shape) if array is not Text else part[: shape[0]])
        start += words[name] * WORD
    return buffer, kind(*views)


def write_text(field: Text, text: str) -> None:
    """Writes as much of the text as fits."""
    encoded = text.encode("ascii", "replace")[: field.size]
    field[:] = 0
    field[: len(encoded)] = np.frombuffer(encoded, np.uint8)


def read_text(field: Text) -> str:
    return field.tobytes().rstrip(b"\0").decode("ascii")


def _dtype(array: object) -> type:
    return np.float64 if array is Floats else np.int64


def _words(hint: tuple[object, ...]) -> int:
    array, *shape = hint
    count = int(np.prod(np.array(shape, dtype=int)))
    return -(-count // WORD) if array is Text else count


class Mailbox:
    """Shared memory for records of one size; one process writes, one reads.

    It is nameless (memfd): the kernel frees it with the last process that holds it, however that ends.

    Args:
        size: Of a record [bytes], a multiple of 8.
        fd: Descriptor of a mailbox that another process made; None makes one.
    """

    def __init__(self, size: int, fd: int | None = None) -> None:
        self._slot = size + 2 * WORD
        length = WORD + SLOTS * self._slot
        self.fd = os.memfd_create("serl-mailbox") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, length)
        memory = np.frombuffer(mmap.mmap(self.fd, length), np.uint8)
        self._newest = memory[:WORD].view(np.uint64)
        slots = memory[WORD:].reshape(SLOTS, self._slot)
        self._numbers = [slot[:WORD].view(np.uint64) for slot in slots]
        self._payloads = [slot[WORD:-WORD] for slot in slots]
        self._checksums = [slot[-WORD:].view(np.uint64) for slot in slots]
        self._copy = np.zeros(size, dtype=np.uint8)
        self._number = 0
        self.torn = 0
        """Copies that did not fit their checksum, in this reader."""

    def write(self, record: npt.NDArray[np.uint8]) -> None:
        """Publishes a record; takes the same time whatever the reader does."""
        self._number += 1
        slot = self._number % SLOTS
        self._numbers[slot][0] = self._number
        self._payloads[slot][:] = record
        self._checksums[slot][0] = zlib.crc32(record.data, self._number & 0xFFFFFFFF)
        self._newest[0] = self._number

    def read(self, record: npt.NDArray[np.uint8]) -> bool:
        """Replaces the record by the newest one; False where there is none that this reader has not had."""
        for _ in range(ATTEMPTS):
            number = int(self._newest[0])
            if number == self._number:
                return False
            slot = number % SLOTS
            self._copy[:] = self._payloads[slot]
            checksum = int(self._checksums[slot][0])
            whole = zlib.crc32(self._copy.data, number & 0xFFFFFFFF) == checksum
            if whole and int(self._numbers[slot][0]) == number:
                self._number = number
                record[:] = self._copy
                return True
            self.torn += 1
        return False

    def close(self) -> None:
        """Closes the descriptor; the memory goes with the last process that maps it."""
        os.close(self.fd)
