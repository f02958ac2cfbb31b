"""Labelled frames out of episode files, and their split by episode."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from serl_suite.data.episodes import Episode, read_episode
from serl_suite.rewards.config import BadClassifier
from serl_suite.rewards.labels import Labels, read_labels
from serl_suite.rewards.pictures import stale_steps
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import EnvSpec

__all__ = ["Clip", "Frames", "Parts", "check_cameras", "episode_files", "read_frames", "split"]

Progress = Callable[[int, int], None]


class Clip(NamedTuple):
    """The labelled frames of one episode; n of them."""

    name: str
    """Session and number: what names an episode for ever."""
    group: str
    """Episodes that began alike share it, and no split parts them."""
    path: Path
    places: npt.NDArray[np.int64]
    """Place of each frame in the episode, of single frames by their time. Shape: (n,)"""
    labels: npt.NDArray[np.int64]
    """Classes. Shape: (n,)"""
    pictures: dict[str, npt.NDArray[np.uint8]]
    """By camera. Shape of each: (n, side, side, 3)"""
    states: dict[str, npt.NDArray[np.float32]]
    """By key of the observation. Shape of each: (n, ...)"""


class Frames(NamedTuple):
    """A set of labelled frames."""

    clips: list[Clip]
    spec: EnvSpec
    classes: tuple[str, ...]
    success: str

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Of all frames, clip after clip. Shape: (n,)"""
        return np.concatenate([np.zeros(0, np.int64), *(clip.labels for clip in self.clips)])

    @property
    def succeeded(self) -> npt.NDArray[np.bool_]:
        """Whether each frame is of the success class. Shape: (n,)"""
        return np.equal(self.labels, self.classes.index(self.success))

    def pictures(self, camera: str) -> npt.NDArray[np.uint8]:
        """Of all frames, copied into one array. Shape: (n, side, side, 3)"""
        return np.concatenate([clip.pictures[camera] for clip in self.clips])

    def only(self, names: Iterable[str]) -> "Frames":
        """The episodes of these names."""
        wanted = frozenset(names)
        return self._replace(clips=[clip for clip in self.clips if clip.name in wanted])

    def without(self, parts: "Parts") -> "Frames":
        """The episodes that are in neither training nor calibration, nor began like one of those."""
        known, seen = frozenset(parts.training + parts.calibration), frozenset(parts.seen)
        return self._replace(
            clips=[clip for clip in self.clips if clip.name not in known and clip.group not in seen]
        )


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Names of episodes; none is in two of them."""

    training: tuple[str, ...]
    calibration: tuple[str, ...]
    test: tuple[str, ...]
    seen: tuple[str, ...] = ()
    """Groups of the first two: what began like one of those is not new, whatever it is called."""


def episode_files(paths: Sequence[Path]) -> list[Path]:
    """Every episode file of folders (searched recursively) and files, in order.

    Raises:
        BadClassifier: There is none.
    """
    found = [sorted(path.rglob("*.parquet")) if path.is_dir() else [path] for path in paths]
    if not (files := [file for part in found for file in part]):
        raise BadClassifier(
            f"no episode (*.parquet) in {', '.join(map(str, paths))}; record some with `serl reward record TASK`"
        )
    return files


def check_cameras(spec: EnvSpec, cameras: Sequence[str], side: int, whose: str) -> None:
    """Raises: BadClassifier, where a camera is missing, or its pictures are not (side, side, 3)."""
    for camera in cameras:
        if camera not in spec.image_keys:
            has = ", ".join(spec.image_keys) or "no camera"
            raise BadClassifier(
                f"{whose} has {has}, and no camera {camera!r}; the cameras of a classifier ({', '.join(cameras)}) are "
                "there wherever it is trained and used"
            )
        if spec.observation[camera].shape != (side, side, 3):
            raise BadClassifier(
                f"pictures of camera {camera!r} in {whose} are {spec.observation[camera].describe()}, and not ({side}, "
                f"{side}, 3) as the classifier's; set the camera to that size, or train a classifier on these alone"
            )


def read_frames(
    paths: Sequence[Path], cameras: Sequence[str] = (), progress: Progress = lambda done, count: None
) -> Frames:
    """Reads all labelled frames.

    Args:
        paths: Episode files and folders of them.
        cameras: Whose pictures; by default all that the first episode has.
        progress: Called with how many files have been read, of how many.

    Raises:
        BadClassifier: No frame is labelled, or the episodes have other cameras, sizes or classes.
        BadPicture: A black picture, in a file that is named.
        CorruptEpisode: A file is damaged.
    """
    files = episode_files(paths)
    first = read_episode(files[0]).spec
    cameras = tuple(cameras) or first.image_keys
    if not cameras:
        raise BadClassifier(f"{files[0]} holds no pictures; record with cameras: `serl reward record TASK`")
    side = first.observation[cameras[0]].shape[0] if cameras[0] in first.image_keys else 0
    labels = {folder: read_labels(folder) for folder in dict.fromkeys(file.parent for file in files)}
    for folder, told in labels.items():
        if strange := sorted(told.frames.keys() - {file.name for file in folder.glob("*.parquet")}):
            raise BadClassifier(
                f"labels.json in {folder} labels {strange[0]}, and there is no such file; mend it"
            )
    its = labels[files[0].parent]
    clips = []
    for done, file in enumerate(files):
        progress(done, len(files))
        episode, here = read_episode(file), labels[file.parent]
        check_cameras(episode.spec, cameras, side, str(file))
        if episode.spec.task != first.task:
            raise BadClassifier(
                f"{file} is of {episode.spec.task}, and {files[0]} of {first.task}; a classifier is of one task"
            )
        if (here.classes, here.success) != (its.classes, its.success):
            raise BadClassifier(
                f"{file.parent} has classes {here.classes}, others {its.classes}; train apart"
            )
        clips.append(_clip(file, episode, cameras, here))
    progress(len(files), len(files))
    if not any(clip.labels.size for clip in clips):
        raise BadClassifier(
            f"no step of {len(files)} episodes tells whether it succeeded; record with `serl reward record`, or label "
            "them in a labels.json"
        )
    by_name: dict[str, Clip] = {}
    for clip in clips:
        if (first_one := by_name.setdefault(clip.name, clip)) is not clip:
            raise BadClassifier(
                f"{first_one.path} and {clip.path} are the same episode ({clip.name}), which could be in training and "
                "test; leave one out, or record with another --seed"
            )
    return Frames([clip for clip in clips if clip.labels.size], first, its.classes, its.success)


def split(frames: Frames, calibration_share: float, test_share: float, seed: int) -> Parts:
    """Parts the episodes at random, those with a success and those without in the same shares.

    Raises:
        BadClassifier: There are too few episodes for each part to see successes and failures.
    """
    rng = np.random.default_rng(seed)
    success = frames.classes.index(frames.success)
    groups: dict[str, list[Clip]] = {}
    for clip in frames.clips:
        groups.setdefault(clip.group, []).append(clip)
    parts: tuple[list[str], ...] = ([], [], [])
    for wanted in (True, False):
        kind = [g for g in groups.values() if any((clip.labels == success).any() for clip in g) == wanted]
        tested, calibrated = (
            max(1, round(share * len(kind))) if kind else 0 for share in (test_share, calibration_share)
        )
        for place, k in enumerate(rng.permutation(len(kind))):
            part = 2 if place < tested else 1 if place < tested + calibrated else 0
            parts[part].extend(clip.name for clip in kind[k])
    for names in parts:
        succeeded = frames.only(names).succeeded
        if not (succeeded.any() and (~succeeded).any()):
            raise BadClassifier(
                f"{len(groups)} starts are too few: training, calibration and test each need successes and failures; "
                "record at least 5 of each (--n 5)"
            )
    training, calibration, test = (tuple(names) for names in parts)
    known = frozenset(training + calibration)
    seen = tuple(sorted({clip.group for clip in frames.clips if clip.name in known}))
    return Parts(training=training, calibration=calibration, test=test, seen=seen)


def _places(steps: Sequence[Step], rate_hz: float) -> npt.NDArray[np.int64]:
    """By time where it is told: single frames that were kept are numbered one after the other. Shape: (n,)"""
    indices = np.array([s.index for s in steps], np.int64)
    times = np.round([s.time_s * rate_hz for s in steps]).astype(np.int64)
    return times if (np.diff(times) > 0).all() else indices


def _clip(file: Path, episode: Episode, cameras: Sequence[str], labels: Labels) -> Clip:
    told, stale = labels.of(file, episode), stale_steps(file, episode, cameras)
    rows = [row for row, label in enumerate(told) if label >= 0 and row not in stale]
    steps = [episode.steps[row] for row in rows]
    name = f"{episode.session_id}/{episode.number}"

    def stacked(key: str) -> npt.NDArray[np.generic]:
        spec = episode.spec.observation[key]
        return np.array([s.observation[key] for s in steps], spec.numpy_dtype).reshape(-1, *spec.shape)

    return Clip(
        name=name,
        group=name if episode.seed is None else f"{episode.spec.task} {episode.seed}",
        path=file,
        places=_places(steps, episode.spec.rate_hz),
        labels=np.array([told[row] for row in rows], np.int64),
        pictures={camera: stacked(camera).astype(np.uint8) for camera in cameras},
        states={key: stacked(key).astype(np.float32) for key in episode.spec.state_keys},
    )
