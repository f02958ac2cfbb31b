"""Pictures to train a backbone on, before and after a step: of recorded episodes, and of a twin that is moved about."""

from collections.abc import Iterator, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serl_suite.data.episodes import read_episode
from serl_suite.errors import SerlError
from serl_suite.nodes.environment import Environment
from serl_suite.wire.messages import Observation
from serl_suite.wire.spaces import EnvSpec

__all__ = ["Album", "NoPictures", "Pair", "Pairs", "recorded", "rendered"]

Picture = NDArray[np.uint8]
Vector = NDArray[np.float32]
LENGTHS = (8, 30)
"""Steps of an episode of a moved twin, at least and fewer than: short, so that many begin."""
NOISES = (0.1, 0.8)
"""Of the scripted expert, from a steady hand to one that misses."""
WANDERING = 0.3
"""Share of episodes with random motions and no goal."""
DRIFT, PUSH = 0.8, 0.36
"""A random motion: how much of the last action stays, and the standard deviation of what is added."""


POSE = "tcp_pose"
"""Observation of where hand and wrist camera are. Speeds and forces change by more than can be seen."""
EPISODES = 100_000
"""Seeds of the environment for each seed of the renders."""


class NoPictures(SerlError):
    """There is nothing to look at."""


class Pair(NamedTuple):
    """What one eye saw before a step and after it."""

    eye: str
    """Task and camera."""
    before: Picture
    after: Picture
    """Shape: (height, width, 3)"""
    motion: Vector
    """What happened between. Shape: (motion_dim,)"""


class Pairs(NamedTuple):
    """Many pairs of square RGB pictures."""

    before: Tensor
    after: Tensor
    """uint8. Shape: (n, side, side, 3)"""
    motions: Tensor
    """float32; those of fewer numbers than the longest are followed by zeros. Shape: (n, motion_dim)"""
    eyes: Tensor
    """Index into `names`. Shape: (n,)"""
    names: tuple[str, ...]
    """Of eyes: task and camera."""

    def counts(self) -> dict[str, int]:
        """How many of each eye."""
        return {name: int((self.eyes == index).sum()) for index, name in enumerate(self.names)}


class Album:
    """Collects pairs, resized to one side; of more than fit, a random selection in which all are equally likely.

    Args:
        side: Of the square pictures [pixels].
        capacity: How many pairs to keep.
        seed: Of the selection.
    """

    def __init__(self, side: int, capacity: int, seed: int) -> None:
        self._side, self._capacity = side, capacity
        self._rng = np.random.default_rng(seed)
        self._kept: list[Pair] = []
        self._seen = 0

    def add(self, pair: Pair) -> None:
        """Keeps it, perhaps."""
        self._seen += 1
        place = len(self._kept)
        if place == self._capacity:
            place = int(self._rng.integers(self._seen))
            if place >= self._capacity:
                return
        before, after = self._resized(pair.before), self._resized(pair.after)
        self._kept[place : place + 1] = [pair._replace(before=before, after=after)]

    def pairs(self) -> Pairs:
        """All that were kept.

        Raises:
            NoPictures: There are none.
        """
        if not self._kept:
            raise NoPictures(
                "no pictures: these episodes observe no camera. Record some (serl demo record TASK --scripted "
                "--cameras front wrist), or look at a twin (--task TASK)"
            )
        eyes, before, after, motions = zip(*self._kept, strict=True)
        names = tuple(sorted(set(eyes)))
        longest = max(motion.size for motion in motions)
        return Pairs(
            torch.from_numpy(np.stack(before)),
            torch.from_numpy(np.stack(after)),
            torch.from_numpy(np.stack([np.pad(motion, (0, longest - motion.size)) for motion in motions])),
            torch.tensor([names.index(eye) for eye in eyes]),
            names,
        )

    def _resized(self, picture: Picture) -> Picture:
        if picture.shape[:2] == (self._side, self._side):
            return picture.copy()
        size = (self._side, self._side)
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def recorded(paths: Sequence[Path]) -> Iterator[Pair]:
    """Every step of every episode, through every eye.

    Args:
        paths: Folders, searched recursively, or episode files.

    Raises:
        NoPictures: A path holds no episode.
        CorruptEpisode: A file is damaged.
    """
    for path in paths:
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not files:
            raise NoPictures(f"no episode (*.parquet) in {path}; check the path")
        for file in files:
            episode = read_episode(file)
            for step, following in pairwise(episode.steps):
                if following.action is not None and following.action.size:  # single frames have none
                    yield from _pairs(episode.spec, step.observation, following.observation, following.action)


def rendered(environment: Environment, seed: int) -> Iterator[Pair]:
    """Steps of a twin without end: short episodes of its scripted expert, where it has one, with little to much noise,
    and of random motions.

    Raises:
        NoPictures: The environment observes no camera.
    """
    spec = environment.spec
    if not spec.image_keys:
        raise NoPictures(
            f"{spec.task} shows no picture; name its cameras (--cameras), or give recorded episodes"
        )
    rng = np.random.default_rng(seed)
    for episode in count():
        yield from _episode(environment, rng, EPISODES * (seed + 1) + episode)


def _episode(environment: Environment, rng: np.random.Generator, seed: int) -> Iterator[Pair]:
    observation = environment.reset(seed=seed)
    expert = None
    if environment.has_expert and rng.uniform() >= WANDERING:
        expert = environment.make_expert(float(rng.uniform(*NOISES)), seed)
        expert.reset()
    drift = np.zeros(environment.spec.action_dim)
    for _ in range(int(rng.integers(*LENGTHS))):
        if expert is not None:
            action = expert.act(observation)
        else:
            drift = np.clip(DRIFT * drift + PUSH * rng.standard_normal(drift.shape), -1.0, 1.0)
            action = environment.scale.to_env(drift.astype(np.float32))
        before = observation
        observation, _, terminated, truncated, _ = environment.step(action)
        yield from _pairs(environment.spec, before, observation, action)
        if terminated or truncated:
            return


def _pairs(spec: EnvSpec, before: Observation, after: Observation, action: Vector) -> Iterator[Pair]:
    """Through every eye, with the change of `POSE`, or of all of the state where it is not observed; without a state,
    with the action. Not through a frame stack's older pictures: they are the eye's own of another step."""
    keys = (POSE,) if POSE in spec.observation else spec.state_keys
    motion = np.concatenate([(after[key] - before[key]).ravel() for key in keys]) if keys else action
    for key in (key for key, eye in spec.eyes.items() if key == eye):
        yield Pair(f"{spec.task} {key}", before[key], after[key], motion.astype(np.float32))
