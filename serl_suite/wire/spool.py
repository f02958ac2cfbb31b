"""What the learner has not acknowledged yet: steps on disk, to be read back when they must be sent (again).

A session is a folder: `lock` (held while its actor lives), `session.log` (its hello, the run it belongs to) and
segments `steps-<first seq>.log` (wire/segments.py), each let go once every step in it is acknowledged; such a file
is written over as a later segment, so a record counts only where its seq is due. Writing goes to the page cache,
which is the memory of unacknowledged steps: it outlives this process and is bounded by the operating system.
"""

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from serl_suite.errors import SerlError
from serl_suite.wire.codec import Codec, EncodedStep
from serl_suite.wire.messages import Hello
from serl_suite.wire.records import SEQ, Buffer, RecordFile, pack, record_size, scan
from serl_suite.wire.segments import Segment

__all__ = ["Records", "Spool", "SpoolError"]

HELLO, RUN = b"H", b"R"
DEFAULT_SEGMENT_BYTES = 4 * 1024 * 1024
SPARES = 8
"""Segments kept for reuse: to write over pages that are there is several times as fast as to get new ones."""


class SpoolError(SerlError):
    """A spool folder cannot be used."""


class Records(NamedTuple):
    """Steps as they lie in a segment: their bytes change some time after they were acknowledged."""

    data: Buffer
    sizes: list[int]
    """Of each step's record [bytes]."""


class Spool:
    """Steps `first_seq` <= seq < `next_seq` of one session; thread-safe for one writer and one reader.

    `append` belongs to the writer (the environment's thread), everything else to the reader (the I/O thread).
    """

    def __init__(self, folder: Path, hello: Hello, lock_fd: int, segment_bytes: int) -> None:
        """Use `create` or `pending`."""
        self.folder = folder
        self.hello = hello
        self.run_id: str | None = None
        """The run that welcomed this session, once one has."""
        self.first_seq = 0
        self.next_seq = 0
        self.newest_bytes = 0
        """Of the record appended last."""
        self._lock = threading.Lock()
        self._segment_bytes = segment_bytes
        self._index: list[tuple[Segment, int, int]] = []
        self._segments: list[Segment] = []
        self._spares: list[Segment] = []
        self._spares_made = 0
        self._lock_fd = lock_fd

    @classmethod
    def create(cls, root: Path, hello: Hello, *, segment_bytes: int = DEFAULT_SEGMENT_BYTES) -> "Spool":
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
            spool = cls(folder, hello, lock_fd, segment_bytes)
            spool._note(HELLO, bytes(Codec().encode(hello)[0]))
            return spool

    @classmethod
    def pending(cls, root: Path) -> list["Spool"]:
        """Sessions in `root` whose actor is gone and whose steps were not all acknowledged, oldest first.

        Empty leftovers are removed; a torn last record (its `append` never returned) does not count.

        Raises: SpoolError, where a file was damaged from outside.
        """
        if not root.is_dir():
            return []
        with _locked(root):
            folders = sorted((p for p in root.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime_ns)
            spools = [cls._reopen(folder) for folder in folders]
        return [spool for spool in spools if spool is not None]

    @classmethod
    def _reopen(cls, folder: Path) -> "Spool | None":
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
        spool = cls(folder, hello, lock_fd, DEFAULT_SEGMENT_BYTES)
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
        parts = [SEQ.pack(seq), *step.parts]
        segment = self._segment_for(seq, record_size(parts))
        start = segment.size
        length = self.newest_bytes = segment.append(parts)
        with self._lock:
            self._index.append((segment, start, length))
            self.next_seq = seq + 1

    def read(self, seq: int, max_bytes: int, max_steps: int) -> Records:
        """Records from `seq` on that lie next to each other, at least one, not more than asked for."""
        with self._lock:
            at = seq - self.first_seq
            segment, start, _ = self._index[at]
            end, sizes = start, list[int]()
            for owner, _, length in self._index[at : at + max_steps]:
                if owner is not segment or (sizes and end + length - start > max_bytes):
                    break
                end += length
                sizes.append(length)
        return Records(segment.read(start, end - start), sizes)

    def check(self, seq: int, records: Records) -> None:
        """Raises: SpoolError, where records from `seq` on were damaged from outside."""
        found = [bytes(record.parts[0]) for record in scan(records.data)]
        for number, due in enumerate(range(seq, seq + len(records.sizes))):
            if found[number : number + 1] != [SEQ.pack(due)]:
                raise SpoolError(f"{self.folder} was damaged: step {due} cannot be sent again")

    def acknowledge(self, seq: int) -> None:
        """Forgets every step up to and including `seq`, and lets go of segments that held only such steps."""
        with self._lock:
            count = min(seq + 1, self.next_seq) - self.first_seq
            if count <= 0:
                return
            newest = self._segments[-1]
            del self._index[:count]
            self.first_seq += count
            oldest = self._index[0][0] if self._index else newest
            keep = self._segments.index(oldest)
            gone, self._segments = self._segments[:keep], self._segments[keep:]
        for segment in gone:
            self._let_go(segment)

    def belongs_to(self, run_id: str) -> None:
        """Notes the run that welcomed the session: its steps go to no other."""
        if self.run_id != run_id:
            self._note(RUN, run_id.encode())
            self.run_id = run_id

    def close(self, *, delete: bool) -> None:
        """Lets go of the files; `delete` where everything was acknowledged."""
        self._segments.clear()
        self._spares.clear()
        if delete:
            shutil.rmtree(self.folder)
        os.close(self._lock_fd)

    def _note(self, kind: bytes, data: bytes) -> None:
        file = RecordFile(self.folder / "session.log")
        try:
            file.append(pack([kind + data]))
        finally:
            file.close()

    def _segment_for(self, seq: int, length: int) -> Segment:
        segments = self._segments
        if segments and segments[-1].size + length <= segments[-1].capacity:
            return segments[-1]
        path = self.folder / f"steps-{seq:012d}.log"
        with self._lock:
            spare = self._spares.pop() if self._spares and length <= self._segment_bytes else None
        if spare is None:
            segment = Segment(path, max(length, self._segment_bytes))
        else:
            segment = spare
            segment.rewind(path)
        with self._lock:
            self._segments.append(segment)
        return segment

    def _let_go(self, segment: Segment) -> None:
        if len(self._spares) >= SPARES or segment.capacity != self._segment_bytes:
            segment.path.unlink()
            return
        self._spares_made += 1
        segment.rewind(self.folder / f"spare-{self._spares_made}.log")
        with self._lock:
            self._spares.append(segment)

    def _scan_segments(self) -> None:
        for path in sorted(self.folder.glob("steps-*.log")):
            due = int(path.stem.partition("-")[2])
            if not self._segments:
                self.first_seq = self.next_seq = due
            segment = Segment(path)
            self._segments.append(segment)
            for record in scan(segment.contents()):
                if not record.parts or record.parts[0] != SEQ.pack(due):
                    break
                if due != self.next_seq:
                    raise SpoolError(
                        f"{path} holds step {due} where {self.next_seq} is due: a file was damaged; move "
                        f"{self.folder} away to go on without these steps"
                    )
                self._index.append((segment, record.start, record.end - record.start))
                due = self.next_seq = due + 1


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
