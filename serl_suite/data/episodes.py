"""The one format of everything a robot did: an immutable parquet file per episode.

One row per step (index 0 is the reset). `observation/<key>` holds PNG for images, else the flattened values; `cost`
is a column only where a step has one. Metadata key `serl` holds JSON: schema, session, number, spec, seed, and the
ranges of seq and received. A file appears whole or not at all: temporary name, fsync, rename, fsync of the folder.
"""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from serl_suite.data.durable import write_durably
from serl_suite.errors import SerlError
from serl_suite.wire.messages import Position, Step, check_order, check_step
from serl_suite.wire.spaces import ArraySpec, BadStep, EnvSpec

__all__ = [
    "CorruptEpisode", "Episode", "EpisodeInfo", "SpecMismatch", "read_dataset", "read_episode", "read_info",
    "write_episode",
]  # fmt: skip

SCHEMA = 1
METADATA_KEY = b"serl"
PNG_FASTEST = 1
PNG_BEGIN = b"\x89PNG\r\n\x1a\n"
DAMAGE = (
    OSError, pa.ArrowException, LookupError, TypeError, ValueError, AttributeError, cv2.error, BadStep,
)  # fmt: skip
"""What reading a damaged table raises; of another type than it should be, a column lacks what is asked of it."""
Array = npt.NDArray[Any]
Table = Any  # pyarrow carries no types


class CorruptEpisode(SerlError):
    """A file is no whole episode of this version."""


class SpecMismatch(SerlError):
    """Episodes were recorded with other observations or actions than asked for."""


class EpisodeInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of an episode without reading its steps."""

    schema: int = SCHEMA
    session_id: str
    number: int
    """Counts the session's episodes."""
    spec: EnvSpec
    seed: int | None = None
    """Of the environment's reset, where known."""
    first_seq: int
    last_seq: int
    first_received: int = -1
    """Place of its steps in the order in which a learner received all of a run's steps; -1: by no learner."""
    last_received: int = -1
    last_index: int
    ended: bool
    """False for an episode that was cut off."""


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """Steps of one episode, index 0 first."""

    session_id: str
    number: int
    spec: EnvSpec
    steps: list[Step]
    received: list[int] | None = None
    """See `EpisodeInfo.first_received`; one for each step."""
    seed: int | None = None

    @property
    def success(self) -> bool:
        """Whether any step was known to succeed."""
        return any(step.success for step in self.steps)

    @property
    def episode_return(self) -> float:
        """Undiscounted sum of rewards."""
        return sum(step.reward for step in self.steps)

    def __len__(self) -> int:
        """How many transitions."""
        return sum(step.index > 0 for step in self.steps)

    def info(self) -> EpisodeInfo:
        received = self.received or [-1]
        return EpisodeInfo(
            session_id=self.session_id, number=self.number, spec=self.spec, seed=self.seed,
            first_seq=self.steps[0].seq, last_seq=self.steps[-1].seq, first_received=received[0],
            last_received=received[-1], last_index=self.steps[-1].index, ended=self.steps[-1].ends_episode,
        )  # fmt: skip


def write_episode(path: Path, episode: Episode) -> None:
    """Writes the file; when this returns, it is on the disk itself.

    Raises:
        BadStep: a step does not fit the spec, or there is none; nothing was written.
        DiskFull: nothing was written.
    """
    if not episode.steps:
        raise BadStep(f"episode {episode.number} holds no step; nothing to write to {path}")
    for step in episode.steps:
        check_step(episode.spec, step)
    sink = pa.BufferOutputStream()
    pq.write_table(_table(episode), sink, compression="zstd", compression_level=1, write_page_checksum=True)
    write_durably(path, sink.getvalue())


def read_info(path: Path) -> EpisodeInfo:
    """Reads an episode's metadata only.

    Raises: CorruptEpisode.
    """
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except FileNotFoundError:
        raise CorruptEpisode(f"no episode file {path}; check the path") from None
    except (OSError, pa.ArrowException) as e:
        raise _corrupt(path, str(e)) from None
    return _parse_info(path, metadata)


def read_episode(path: Path) -> Episode:
    """Reads a whole episode; every page's checksum is verified, every step checked against the spec.

    Raises: CorruptEpisode, naming path, cause and remedy.
    """
    info = read_info(path)
    try:
        table = pq.read_table(path, page_checksum_verification=True, use_threads=False)
        _check_whole(table)
        steps, received = _steps(table, info.spec)
        position = None
        for step in steps:
            check_step(info.spec, step)
            check_order(position, step)
            if position is not None and step.seq != position.seq + 1:
                raise BadStep(f"step {step.seq} comes after step {position.seq}")
            position = Position(step.seq, step.episode, step.index, step.ends_episode)
    except DAMAGE as e:
        raise _corrupt(path, str(e)) from None
    episode = Episode(
        session_id=info.session_id, number=info.number, spec=info.spec, steps=steps, received=received,
        seed=info.seed,
    )  # fmt: skip
    if episode.info() != info:
        raise _corrupt(path, "its metadata describe other steps")
    return episode


def read_dataset(paths: Path | Iterable[Path], spec: EnvSpec | None = None) -> list[Episode]:
    """Every episode of a folder (searched recursively), a file, or several of them; sorted by path.

    Raises:
        CorruptEpisode: nothing is there, or a file is damaged.
        SpecMismatch: an episode does not fit `spec` (or the first episode, where there is none).
    """
    roots = [paths] if isinstance(paths, Path) else list(paths)
    episodes = []
    for root in roots:
        files = sorted(root.rglob("*.parquet")) if root.is_dir() else [root]
        for file in files:
            episode = read_episode(file)
            spec = spec or episode.spec
            if difference := spec.difference(episode.spec):
                raise SpecMismatch(
                    f"{file} does not fit {spec.task} ('here'): {difference}; record demonstrations on that "
                    "task with `serl demo record`, or leave this file out"
                )
            episodes.append(episode)
    if not episodes:
        raise CorruptEpisode(f"no episode (*.parquet) in {', '.join(map(str, roots))}; check the path")
    return episodes


def _table(episode: Episode) -> Table:
    steps, spec = episode.steps, episode.spec
    zeros = np.zeros(spec.action_dim, np.float32)
    columns = {
        "seq": pa.array([s.seq for s in steps], pa.int64()),
        "received": pa.array(episode.received or [-1] * len(steps), pa.int64()),
        "index": pa.array([s.index for s in steps], pa.int64()),
        "action": _list_column(
            np.stack([zeros if s.action is None else s.action for s in steps]), spec.action
        ),
        "reward": pa.array([s.reward for s in steps], pa.float64()),
        "terminated": pa.array([s.terminated for s in steps], pa.bool_()),
        "truncated": pa.array([s.truncated for s in steps], pa.bool_()),
        "success": pa.array([s.success for s in steps], pa.bool_()),
        "source": pa.array([s.source for s in steps], pa.string()),
        "intervention": pa.array([s.intervention for s in steps], pa.bool_()),
        "policy_version": pa.array([s.policy_version for s in steps], pa.int64()),
        "time_s": pa.array([s.time_s for s in steps], pa.float64()),
    }
    for key, array_spec in spec.observation.items():
        arrays = [s.observation[key] for s in steps]
        if array_spec.is_image:
            columns[f"observation/{key}"] = pa.array([_png(image) for image in arrays], pa.binary())
        else:
            columns[f"observation/{key}"] = _list_column(np.stack(arrays), array_spec)
    if any(s.cost for s in steps):
        columns["cost"] = pa.array([s.cost for s in steps], pa.float64())
    for key in sorted({key for s in steps for key in s.frame_times_s}):
        columns[f"frame_time_s/{key}"] = pa.array([s.frame_times_s.get(key) for s in steps], pa.float64())
    return pa.table(columns).replace_schema_metadata({METADATA_KEY: msgspec.json.encode(episode.info())})


def _check_whole(table: Table) -> None:
    """Raises: ValueError, where rows or values are missing that every episode has."""
    if table.num_rows == 0:
        raise ValueError("it holds no step")
    for name in table.column_names:
        optional = name == "success" or name.startswith("frame_time_s/")
        if table[name].null_count and not optional and table[name].type != pa.null():
            raise ValueError(f"column {name!r} lacks {table[name].null_count} of {table.num_rows} values")


def _steps(table: Table, spec: EnvSpec) -> tuple[list[Step], list[int] | None]:
    n = table.num_rows
    observations = {key: _arrays(table[f"observation/{key}"], s, n) for key, s in spec.observation.items()}
    actions = _arrays(table["action"], spec.action, n)
    frame_keys = [name for name in table.column_names if name.startswith("frame_time_s/")]
    names = ["seq", "index", "reward", "terminated", "truncated", "success", "source", "intervention"]
    names += ["policy_version", "time_s", *frame_keys]
    names += ["cost"] if "cost" in table.column_names else []
    rows = table.select(names).to_pylist()
    episode = _parse_info(Path(), table.schema.metadata).number
    steps = []
    for t, row in enumerate(rows):
        frame_times = {key.partition("/")[2]: row.pop(key) for key in frame_keys}
        steps.append(
            Step(
                episode=episode,
                observation={key: arrays[t] for key, arrays in observations.items()},
                action=None if row["index"] == 0 else actions[t],
                frame_times_s={key: value for key, value in frame_times.items() if value is not None},
                **row,
            )
        )
    received = table["received"].to_pylist()
    return steps, None if received[0] < 0 else received


def _list_column(stacked: Array, spec: ArraySpec) -> Table:
    values = pa.array(stacked.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, spec.size) if spec.size else pa.nulls(len(stacked))


def _arrays(column: Table, spec: ArraySpec, n: int) -> Array | list[Array]:
    if spec.is_image:
        return [_image(data, spec) for data in column.to_pylist()]
    if not spec.size:
        return np.empty((n, *spec.shape), spec.numpy_dtype)
    values: Array = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if values.dtype != spec.numpy_dtype:
        raise ValueError(f"a column is {values.dtype}, the spec says {spec.dtype}")
    return values.reshape(n, *spec.shape)


def _png(image: Array) -> bytes:
    _, data = cv2.imencode(
        ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, PNG_FASTEST]
    )
    return data.tobytes()


def _image(data: bytes, spec: ArraySpec) -> Array:
    height, width, _ = spec.shape
    size = struct.pack(">II", width, height)
    if data[:8] != PNG_BEGIN or data[16:24] != size:  # decoded, some kilobytes may be gigabytes
        raise ValueError(f"an image is no PNG of {width} x {height}")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None or image.shape != spec.shape:
        raise ValueError("an image cannot be decoded")
    return np.asarray(image)


def _parse_info(path: Path, metadata: dict[bytes, bytes]) -> EpisodeInfo:
    try:
        raw = metadata[METADATA_KEY]
        version = msgspec.json.decode(raw)["schema"]
        if version != SCHEMA:
            raise CorruptEpisode(
                f"{path} is of version {version}, this program reads {SCHEMA}; read it with the version of "
                "serl-suite that wrote it"
            )
        return msgspec.json.decode(raw, type=EpisodeInfo)
    except (KeyError, TypeError, UnicodeDecodeError, RecursionError, msgspec.DecodeError) as e:
        raise _corrupt(path, f"metadata {METADATA_KEY.decode()!r}: {e}") from None


def _corrupt(path: Path, cause: str) -> CorruptEpisode:
    return CorruptEpisode(f"{path} is no whole episode ({cause}); restore it from a copy, or move it away")
