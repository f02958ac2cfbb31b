"""Which class a frame is of, where success and failure are not enough: a file `labels.json` beside the episodes."""

from pathlib import Path

import msgspec

from serl_suite.data.durable import write_durably
from serl_suite.data.episodes import Episode
from serl_suite.rewards.config import BadClassifier

__all__ = ["Labels", "read_labels", "write_labels"]

NAME = "labels.json"
UNKNOWN = -1


class Labels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Classes of the frames in one folder. Without such a file, a step's `success` is its class."""

    classes: tuple[str, ...] = ("failure", "success")
    success: str = "success"
    """Which of the classes is the success."""
    frames: dict[str, list[int]] = {}
    """By name of the episode's file, the class of each step; -1: not known. An episode that is not named here goes by
    its steps' `success`, which then tells the success from the first of the other classes."""

    def __post_init__(self) -> None:
        if len(set(self.classes)) < max(2, len(self.classes)) or self.success not in self.classes:
            raise ValueError(
                f"classes are two or more different names, the success {self.success!r} one of them"
            )

    def of(self, file: Path, episode: Episode) -> list[int]:
        """The class of each step, -1 where it is not known.

        Raises:
            BadClassifier: The file names more steps than there are, or fewer, or classes that there are not.
        """
        success = self.classes.index(self.success)
        other = 0 if success else 1
        told = self.frames.get(file.name)
        if told is None:
            return [UNKNOWN if s.success is None else success if s.success else other for s in episode.steps]
        if len(told) != len(episode.steps) or not all(UNKNOWN <= c < len(self.classes) for c in told):
            raise BadClassifier(
                f"{file.parent / NAME} does not fit {file.name}, which has {len(episode.steps)} steps; label that "
                f"episode anew with classes 0 to {len(self.classes) - 1}"
            )
        return told


def read_labels(folder: Path) -> Labels:
    """The folder's labels.

    Raises:
        BadClassifier: The file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return Labels()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Labels)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise BadClassifier(
            f"{path} cannot be read ({error}); mend it, or delete it to go by success alone"
        ) from error


def write_labels(folder: Path, labels: Labels) -> None:
    """Raises: DiskFull."""
    write_durably(folder / NAME, msgspec.json.encode(labels))
