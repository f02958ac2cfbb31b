"""A classifier under other light, out of focus and from moved cameras: the same episodes done again in the twin."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from serl_suite.data.episodes import Episode, read_episode
from serl_suite.nodes.curve import STYLE
from serl_suite.nodes.environment import Environment, EnvironmentFailure
from serl_suite.rewards.classifier import RewardModel
from serl_suite.rewards.frames import Clip, Frames
from serl_suite.rewards.scores import score
from serl_suite.wire.messages import Observation

__all__ = ["CONDITIONS", "Condition", "ShiftRow", "draw_shift", "measure_shift", "shift_table"]


class Condition(NamedTuple):
    """How the pictures come to look."""

    name: str
    look: dict[str, float] = {}  # noqa: RUF012 - read only
    """What the environment's `change_look` is told."""
    blur_pixels: float = 0.0
    """Standard deviation of a Gaussian over each picture."""


CONDITIONS = (
    Condition("as recorded"),
    Condition("light 30 % darker", {"brightness": 0.7}),
    Condition("light 30 % brighter", {"brightness": 1.3}),
    Condition("light 15 % warmer", {"warmth": 0.15}),
    Condition("light 15 % colder", {"warmth": -0.15}),
    Condition("blurred by 1 pixel", blur_pixels=1.0),
    Condition("cameras off by 5 mm, 0.5 deg", {"camera_m": 0.005, "camera_rad": np.radians(0.5)}),
    Condition("cameras off by 10 mm, 1 deg", {"camera_m": 0.01, "camera_rad": np.radians(1.0)}),
    Condition("cameras off by 20 mm, 2 deg", {"camera_m": 0.02, "camera_rad": np.radians(2.0)}),
)


class ShiftRow(NamedTuple):
    """A condition, and what came of it."""

    name: str
    figures: dict[str, float | int]
    """Of `Scores.summary`."""


def measure_shift(
    model: RewardModel,
    frames: Frames,
    environment: Environment,
    conditions: Sequence[Condition] = CONDITIONS,
) -> Iterator[ShiftRow]:
    """Does each episode again under each condition, and judges it.

    Args:
        model: The classifier.
        frames: Episodes with the seed of their reset, such as `serl reward record` writes.
        environment: A twin of the task, with the classifier's cameras.

    Yields:
        A row for each condition, as it is measured.

    Raises:
        EnvironmentFailure: The environment cannot change its look, or the episodes do not repeat.
    """
    change = getattr(environment.env.unwrapped, "change_look", None)
    if change is None:
        raise EnvironmentFailure(
            f"{environment.spec.task} cannot change its light; measure this on one of the twins"
        )
    episodes = [read_episode(clip.path) for clip in frames.clips]
    try:
        for condition in conditions:
            clips = []
            for number, (clip, episode) in enumerate(zip(frames.clips, episodes, strict=True)):
                change(**condition.look, seed=number)
                clips.append(_again(clip, episode, environment, condition.blur_pixels))
            yield ShiftRow(condition.name, score(model, frames._replace(clips=clips)).summary())
    finally:
        change()


def shift_table(rows: Sequence[ShiftRow]) -> str:
    """One line a condition."""
    width = max(len(row.name) for row in rows)
    lines = [f"{''.ljust(width)}  accuracy  false positives  false negatives  false episodes"]
    for name, f in rows:
        lines.append(
            f"{name.ljust(width)}  {100 * f['accuracy']:6.2f} %  {100 * f['false_positive_rate']:13.2f} %  "
            f"{100 * f['false_negative_rate']:13.2f} %  {f['episodes_falsely_declared']:8} of {f['episodes']}"
        )
    return "\n".join(lines)


def draw_shift(rows: Sequence[ShiftRow], path: Path) -> None:
    """Bars of accuracy, false positives and false negatives, as a PNG."""
    panels = (
        ("accuracy", "accuracy [%]", "#1f5fae"),
        ("false_positive_rate", "false positives [%]", "#d9501c"),
        ("false_negative_rate", "false negatives [%]", "#b9c2cc"),
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 0.35 * len(rows) + 1), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        for column, (key, title, colour) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), column + 1)
            values = [100 * float(row.figures[key]) for row in rows]
            bars = axes.barh(range(len(rows)), values, color=colour)
            axes.bar_label(bars, fmt="%.1f", padding=3)
            axes.set_yticks(range(len(rows)), [row.name for row in rows] if column == 0 else [""] * len(rows))
            axes.invert_yaxis()
            widest = max(*values, 5)
            axes.set_xlim(0, 1.2 * widest)
            axes.set_xticks(np.linspace(0, widest, 3), [f"{x:.0f}" for x in np.linspace(0, widest, 3)])
            axes.grid(False)
            axes.set_title(title)
        figure.savefig(path)


def _again(clip: Clip, episode: Episode, environment: Environment, blur_pixels: float) -> Clip:
    """The clip with the pictures of now."""
    if episode.seed is None:
        raise EnvironmentFailure(
            f"{clip.path} does not tell the seed of its reset; record with `serl reward record`"
        )
    seen: list[Observation] = [environment.reset(seed=episode.seed)]
    for step in episode.steps[1:]:
        assert step.action is not None  # of an index above 0, as every step that was read is checked to be
        observation, _, _, _, success = environment.step(step.action)
        seen.append(observation)
        if success != step.success:
            raise EnvironmentFailure(
                f"{clip.path} comes out differently at step {step.index} than when it was recorded; record it again "
                "with this version and this task"
            )
    pictures = {
        camera: np.stack([_blurred(seen[place][camera], blur_pixels) for place in clip.places])
        for camera in clip.pictures
    }
    return clip._replace(pictures=pictures)


def _blurred(picture: np.ndarray, pixels: float) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), pixels)) if pixels else picture
