"""What the learner has not acknowledged yet: written before it is sent, read back when it must be sent again.

A session is a folder: `lock` (held while its actor lives), `session.log` (its hello, the run it belongs to) and
segments `steps-<first seq>.log` (see records.py), each deleted once every step in it is acknowledged.
"""

import fcntl
import os
import shutil
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serl_suite.errors import SerlError
from serl_suite.wire.codec import Codec, EncodedStep
from serl_suite.wire.messages import Hello, WireError
from serl_suite.wire.records import RecordFile, pack, scan, split, unpack

__all__ = ["Spool", "SpoolError"]

SEQ = struct.Struct("<Q")
HELLO, RUN = b"H", b"R"
DEFAULT_MEMORY_BYTES = 64 * 1024 * 1024
DEFAULT_SEGMENT_BYTES = 16 * 1024 * 1024


class SpoolError(SerlError):
    """A spool folder cannot be used."""


class Spool:
    """Steps `first_seq` <= seq < `next_seq` of one session; thread-safe for one writer and one reader.

    `append` belongs to the writer (the env's thread), everything else to the reader (the I/O thread). Steps are
    always in the file; up to `memory_bytes` of them are in memory, too.
    """

    def __init__(
        self, folder: Path, hello: Hello, lock_fd: int, memory_bytes: int, segment_bytes: int
    ) -> None:
        """Use `create` or `pending`."""
        self.folder = folder
        self.hello = hello
        self.run_id: str | None = None
        """The run that welcomed this session, once one has."""
        self.first_seq = 0
        self.next_seq = 0
        self._lock = threading.Lock()
        self._memory_bytes = memory_bytes
        self._segment_bytes = segment_bytes
        self._cache: dict[int, EncodedStep] = {}
        self._cached_bytes = 0
        self._index: list[tuple[RecordFile, int, int]] = []
        self._segments: list[RecordFile] = []
        self._lock_fd = lock_fd

    @classmethod
    def create(
        cls,
        root: Path,
        hello: Hello,
        *,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
    ) -> "Spool":
        """A new session's spool in the folder `root`.

        Raises:
            SpoolError: the session is there already.
            DiskFull: no room for it.
        """
        with _locked(root):
            folder = root / hello.session_id
            try:
                folder.mkdir()
            except FileExistsError:
                raise SpoolError(f"session {hello.session_id} is spooled in {folder} already") from None
            lock_fd = _try_lock(folder)
            if lock_fd is None:
                raise SpoolError(f"{folder} is in use by another actor")
            spool = cls(folder, hello, lock_fd, memory_bytes, segment_bytes)
            spool._note(HELLO, bytes(Codec().encode(hello)[0]))
            return spool

    @classmethod
    def pending(cls, root: Path, *, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> list["Spool"]:
        """Sessions in `root` whose actor is gone and whose steps were not all acknowledged, oldest first.

        Empty leftovers are removed; a torn last record (its `append` never returned) is dropped.
        """
        if not root.is_dir():
            return []
        found = []
        with _locked(root):
            for folder in sorted(root.iterdir(), key=lambda path: path.stat().st_mtime_ns):
                spool = cls._reopen(folder, memory_bytes) if folder.is_dir() else None
                if spool is not None:
                    found.append(spool)
        return found

    @classmethod
    def _reopen(cls, folder: Path, memory_bytes: int) -> "Spool | None":
        lock_fd = _try_lock(folder)
        if lock_fd is None:
            return None
        notes = [bytes(record.parts[0]) for record in scan(_contents(folder / "session.log"))]
        hellos = [note[1:] for note in notes if note[:1] == HELLO]
        hello = Codec().decode([hellos[0]]) if hellos else None
        if not isinstance(hello, Hello):  # its actor died while it made the folder
            shutil.rmtree(folder)
            os.close(lock_fd)
            return None
        spool = cls(folder, hello, lock_fd, memory_bytes, DEFAULT_SEGMENT_BYTES)
        runs = [note[1:].decode() for note in notes if note[:1] == RUN]
        spool.run_id = runs[-1] if runs else None
        spool._scan_segments()
        if spool.first_seq == spool.next_seq:
            spool.close(delete=True)
            return None
        return spool

    def append(self, seq: int, step: EncodedStep) -> None:
        """Takes a step; it survives this process once this returns.

        Raises:
            DiskFull: the step was not taken, everything before it was.
            ValueError: `seq` is not `next_seq`.
        """
        if seq != self.next_seq:
            raise ValueError(f"step {seq} was put where step {self.next_seq} is due")
        record = pack([SEQ.pack(seq), step.header, *step.buffers])
        if not self._segments or self._segments[-1].size + len(record) > self._segment_bytes:
            segment = RecordFile(self.folder / f"steps-{seq:012d}.log")
            segment.truncate(0)
        else:
            segment = self._segments[-1]
        start = segment.append(record)
        _, header, *buffers = split(record)
        with self._lock:
            if not self._segments or segment is not self._segments[-1]:
                self._segments.append(segment)
            self._index.append((segment, start, len(record)))
            self.next_seq = seq + 1
            if self._cached_bytes + len(record) <= self._memory_bytes:
                self._cache[seq] = EncodedStep(header, list(buffers))
                self._cached_bytes += len(record)

    def get(self, seq: int) -> EncodedStep:
        """A step that is not acknowledged yet, from memory or from the file.

        Raises: SpoolError, where the file was damaged from outside.
        """
        with self._lock:
            cached = self._cache.get(seq)
            segment, start, length = self._index[seq - self.first_seq]
        if cached is not None:
            return cached
        record = unpack(segment.read(start, length))
        if record is None or record.parts[0] != SEQ.pack(seq):
            raise SpoolError(f"{segment.path} was damaged at byte {start}: step {seq} cannot be sent again")
        return EncodedStep(record.parts[1], list(record.parts[2:]))

    def acknowledge(self, seq: int) -> None:
        """Forgets every step up to and including `seq`, and deletes the segments that held only such steps."""
        with self._lock:
            count = min(seq + 1, self.next_seq) - self.first_seq
            if count <= 0:
                return
            for done in range(self.first_seq, self.first_seq + count):
                if self._cache.pop(done, None) is not None:
                    self._cached_bytes -= self._index[done - self.first_seq][2]
            del self._index[:count]
            self.first_seq += count
            oldest = self._index[0][0] if self._index else self._segments[-1]
            keep = self._segments.index(oldest)
            gone, self._segments = self._segments[:keep], self._segments[keep:]
        for segment in gone:
            segment.close()
            segment.path.unlink()

    def belongs_to(self, run_id: str) -> None:
        """Notes the run that welcomed the session: its steps go to no other."""
        if self.run_id != run_id:
            self._note(RUN, run_id.encode())
            self.run_id = run_id

    def close(self, *, delete: bool) -> None:
        """Lets go of the files; `delete` where everything was acknowledged."""
        for segment in self._segments:
            segment.close()
        self._segments.clear()
        if delete:
            shutil.rmtree(self.folder)
        os.close(self._lock_fd)

    def _note(self, kind: bytes, data: bytes) -> None:
        file = RecordFile(self.folder / "session.log")
        try:
            file.append(pack([kind + data]))
        finally:
            file.close()

    def _scan_segments(self) -> None:
        for path in sorted(self.folder.glob("steps-*.log")):
            segment = RecordFile(path)
            self._segments.append(segment)
            for record in scan(_contents(path)):
                (seq,) = SEQ.unpack(record.parts[0])
                if self._index and seq != self.next_seq:
                    raise WireError(f"{path} holds step {seq} where {self.next_seq} is due")
                if not self._index:
                    self.first_seq = seq
                self.next_seq = seq + 1
                self._index.append((segment, record.start, record.end - record.start))


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _try_lock(folder: Path) -> int | None:
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
