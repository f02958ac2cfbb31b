"""What a learner has received, safe against its death at any moment.

An open episode is a write-ahead file `journal/<session>/<episode>.wal` of records (wire/records.py); a closed
one becomes `episodes/<session>/<episode>.parquet` and its write-ahead file goes. Every step carries `received`,
its place in the order in which this run received steps from all its actors: `recover` yields them in that
order, so that a restarted learner fills its replay as the one before did.
"""

import fcntl
import heapq
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from serl_suite.data.durable import sync_folder
from serl_suite.data.episodes import Episode, EpisodeInfo, read_episode, read_info, write_episode
from serl_suite.errors import SerlError
from serl_suite.wire.codec import Codec, EncodedStep
from serl_suite.wire.messages import Position, Step
from serl_suite.wire.records import RecordFile, pack, scan
from serl_suite.wire.spaces import EnvSpec

__all__ = ["Journal", "RunInUse", "lock_run"]

RECEIVED = struct.Struct("<Q")
Received = tuple[int, str, Step]


class RunInUse(SerlError):
    """Another learner writes to this run."""


class _Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """First record of a write-ahead file."""

    session_id: str
    number: int
    spec: EnvSpec


class _OpenEpisode:
    """One write-ahead file."""

    def __init__(self, file: RecordFile, head: _Head) -> None:
        self.file, self.head = file, head
        self.synced = False
        self.first_received = -1
        self.first_seq = -1
        self.last_received = -1
        self.last: Step | None = None

    @classmethod
    def create(cls, path: Path, head: _Head) -> "_OpenEpisode":
        path.parent.mkdir(parents=True, exist_ok=True)
        file = RecordFile(path)
        try:
            file.truncate(0)
            file.append(pack([msgspec.json.encode(head)]))
        except (OSError, SerlError):
            file.close()
            path.unlink()
            raise
        return cls(file, head)

    @classmethod
    def reopen(cls, path: Path, codec: Codec) -> "_OpenEpisode | None":
        """None where it holds no whole step."""
        file = RecordFile(path)
        records = scan(path.read_bytes())
        first = next(records, None)
        end, episode = 0, None
        if first is not None:
            episode = cls(file, msgspec.json.decode(first.parts[0], type=_Head))
            for record in records:
                episode.note(RECEIVED.unpack(record.parts[0])[0], _decode(codec, record.parts))
                end = record.end
        if episode is None or episode.last is None:
            file.close()
            return None
        file.truncate(end)
        return episode

    def append(self, received: int, step: Step, codec: Codec) -> None:
        encoded = codec.encode_step(step)
        self.file.append(pack([RECEIVED.pack(received), encoded.header, *encoded.buffers]))
        self.note(received, step)

    def note(self, received: int, step: Step) -> None:
        if self.last is None:
            self.first_received, self.first_seq = received, step.seq
        self.last, self.last_received = step, received
        self.synced = False

    def read(self, codec: Codec) -> Iterator[Received]:
        records = scan(self.file.read(0, self.file.size))
        next(records)
        for record in records:
            yield (
                RECEIVED.unpack(record.parts[0])[0], self.head.session_id, _decode(codec, record.parts)
            )  # fmt: skip

    def remove(self) -> None:
        self.file.close()
        self.file.path.unlink()


class Journal:
    """A run folder's steps. Not thread-safe; one process at a time, which a lock ensures."""

    def __init__(self, run: Path) -> None:
        """Opens the run folder, or begins one; what a killed process left half-written is put in order.

        Raises:
            RunInUse: another process has it open.
            CorruptEpisode: an episode's file is damaged.
        """
        self._wal_root, self._episode_root = run / "journal", run / "episodes"
        self._wal_root.mkdir(parents=True, exist_ok=True)
        self._lock_fd = lock_run(self._wal_root / ".lock", run)
        self._codec = Codec()
        self._positions: dict[str, Position] = {}
        self._specs: dict[str, EnvSpec] = {}
        self._archived: list[tuple[Path, EpisodeInfo]] = []
        self._open: dict[str, _OpenEpisode] = {}
        self._closed: list[_OpenEpisode] = []
        self._next_received = 0
        self._new_folders: set[Path] = set()
        self._load_archived()
        self._load_open()
        self.sync()

    @property
    def positions(self) -> dict[str, Position]:
        """The last step of every session (a copy)."""
        return dict(self._positions)

    @property
    def specs(self) -> dict[str, EnvSpec]:
        """The spec of every session (a copy)."""
        return dict(self._specs)

    @property
    def received(self) -> int:
        """How many steps this run has received, resets included."""
        return self._next_received

    def last_seq(self, session_id: str) -> int:
        """-1 for a session that is not in the journal."""
        position = self._positions.get(session_id)
        return -1 if position is None else position.seq

    def append(self, session_id: str, spec: EnvSpec, step: Step) -> int:
        """Takes the session's next step and returns its `received`; durable after the next `sync`.

        An episode is closed by its last step, by the first step of the next, or by `finish`; one that goes on after
        `finish` is opened again.

        Raises:
            ValueError: the step is not the session's next.
            CorruptEpisode: the file of an episode that goes on is damaged.
            DiskFull: it was not taken, everything before it was.
        """
        if step.seq != self.last_seq(session_id) + 1:
            raise ValueError(f"session {session_id}: step {step.seq} came after {self.last_seq(session_id)}")
        episode = self._open.get(session_id)
        if episode is not None and episode.head.number != step.episode:
            self._closed.append(self._open.pop(session_id))
            episode = None
        if episode is None and step.index > 0:
            episode = self._open_again(session_id, step.episode)
        if episode is None:
            path = self._wal_root / session_id / f"{step.episode:06d}.wal"
            episode = _OpenEpisode.create(path, _Head(session_id=session_id, number=step.episode, spec=spec))
            self._new_folders |= {path.parent, self._wal_root}
            self._open[session_id] = episode
        received = self._next_received
        episode.append(received, step, self._codec)
        self._next_received += 1
        self._specs[session_id] = spec
        self._positions[session_id] = Position(step.seq, step.episode, step.index, step.ends_episode)
        if step.ends_episode:
            self._closed.append(self._open.pop(session_id))
        return received

    def finish(self, session_id: str) -> None:
        """Closes the session's open episode, cut off where it is: nothing more is expected of its actor."""
        if session_id in self._open:
            self._closed.append(self._open.pop(session_id))

    def sync(self) -> None:
        """Returns when every step appended is on the disk itself."""
        for folder in self._new_folders:
            sync_folder(folder)
        self._new_folders.clear()
        for episode in [*self._open.values(), *self._closed]:
            if not episode.synced:
                episode.file.sync()
                episode.synced = True

    @property
    def closed(self) -> int:
        """How many closed episodes are not files yet."""
        return len(self._closed)

    def archive(self, limit: int | None = None) -> list[Path]:
        """Turns closed episodes into files, at most `limit`; returns their paths."""
        self.sync()
        paths: list[Path] = []
        while self._closed and (limit is None or len(paths) < limit):
            wal = self._closed[0]
            if wal.last is None:  # its first step met a full disk
                self._closed.pop(0).remove()
                continue
            rows = list(wal.read(self._codec))
            episode = Episode(
                session_id=wal.head.session_id, number=wal.head.number, spec=wal.head.spec,
                steps=[step for _, _, step in rows], received=[received for received, _, _ in rows],
            )  # fmt: skip
            path = self._episode_root / episode.session_id / f"{episode.number:06d}.parquet"
            write_episode(path, episode)
            self._archived.append((path, episode.info()))
            self._closed.pop(0).remove()
            paths.append(path)
        return paths

    def recover(self) -> Iterator[tuple[str, Step]]:
        """Every step of the run with its session, in the order received; one episode per actor in memory."""
        waiting = [(info.first_received, path) for path, info in self._archived if info.first_received >= 0]
        sources: list[tuple[int, Path | _OpenEpisode]] = [*waiting]
        sources += [(wal.first_received, wal) for wal in [*self._open.values(), *self._closed] if wal.last]
        sources.sort(key=lambda source: source[0])
        heap: list[tuple[int, int, Received, Iterator[Received]]] = []
        for number, (first, source) in enumerate(sources):
            while heap and heap[0][0] < first:
                yield _pop(heap)
            _push(heap, number, self._read(source))
        while heap:
            yield _pop(heap)

    def close(self) -> None:
        """Makes everything durable and lets go of the run."""
        self.archive()
        for episode in self._open.values():
            episode.file.close()
        self._open.clear()
        os.close(self._lock_fd)

    def _open_again(self, session_id: str, number: int) -> _OpenEpisode | None:
        """The episode as a write-ahead file, where it was cut off and goes on after all."""
        for wal in self._closed:
            if (wal.head.session_id, wal.head.number) == (session_id, number):
                self._closed.remove(wal)
                self._open[session_id] = wal
                return wal
        archived = self._episode_root / session_id / f"{number:06d}.parquet"
        if not archived.exists():
            return None
        episode = read_episode(archived)
        path = self._wal_root / session_id / f"{number:06d}.wal"
        wal = _OpenEpisode.create(path, _Head(session_id=session_id, number=number, spec=episode.spec))
        for received, step in zip(episode.received or [], episode.steps, strict=True):
            wal.append(received, step, self._codec)
        self._new_folders |= {path.parent, self._wal_root}
        self._open[session_id] = wal
        self.sync()
        archived.unlink()  # only now: of the two, the file counts where both are there
        sync_folder(archived.parent)
        self._archived = [item for item in self._archived if item[0] != archived]
        return wal

    def _read(self, source: Path | _OpenEpisode) -> Iterator[Received]:
        if isinstance(source, _OpenEpisode):
            return source.read(self._codec)
        episode = read_episode(source)
        received = episode.received or []
        return iter([(r, episode.session_id, s) for r, s in zip(received, episode.steps, strict=True)])

    def _load_archived(self) -> None:
        for path in sorted(self._episode_root.rglob("*.tmp")):
            path.unlink()
        for path in sorted(self._episode_root.rglob("*.parquet")):
            info = read_info(path)
            self._archived.append((path, info))
            self._specs[info.session_id] = info.spec
            self._advance(
                info.session_id, Position(info.last_seq, info.number, info.last_index, info.ended),
                info.last_received,
            )  # fmt: skip

    def _load_open(self) -> None:
        for folder in sorted(path for path in self._wal_root.iterdir() if path.is_dir()):
            for path in sorted(folder.glob("*.wal")):
                wal = _OpenEpisode.reopen(path, self._codec)
                archived = self._episode_root / folder.name / f"{path.stem}.parquet"
                if wal is None or wal.last is None or archived.exists():
                    path.unlink()
                elif wal.first_seq != self.last_seq(wal.head.session_id) + 1:
                    wal.remove()  # what came before it was never durable, so neither was this acknowledged
                else:
                    self._resume(wal, wal.last)

    def _resume(self, wal: _OpenEpisode, last: Step) -> None:
        session_id = wal.head.session_id
        self.finish(session_id)
        if last.ends_episode:
            self._closed.append(wal)
        else:
            self._open[session_id] = wal
        self._specs[session_id] = wal.head.spec
        position = Position(last.seq, last.episode, last.index, last.ends_episode)
        self._advance(session_id, position, wal.last_received)

    def _advance(self, session_id: str, position: Position, received: int) -> None:
        if position.seq > self.last_seq(session_id):
            self._positions[session_id] = position
        self._next_received = max(self._next_received, received + 1)


def _decode(codec: Codec, parts: list[memoryview]) -> Step:
    return codec.decode_step(EncodedStep(parts[1], list(parts[2:])))


def _push(
    heap: list[tuple[int, int, Received, Iterator[Received]]], number: int, rows: Iterator[Received]
) -> None:
    row = next(rows, None)
    if row is not None:
        heapq.heappush(heap, (row[0], number, row, rows))


def _pop(heap: list[tuple[int, int, Received, Iterator[Received]]]) -> tuple[str, Step]:
    _, number, (_, session_id, step), rows = heapq.heappop(heap)
    _push(heap, number, rows)
    return session_id, step


def lock_run(path: Path, run: Path) -> int:
    """Locks a file of a run for this process; closing the descriptor that it returns, or dying, frees it.

    Raises:
        RunInUse: Another process has it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise RunInUse(
            f"another process writes to {run}; stop it, or start this one with another run folder (--run)"
        ) from None
    return fd
