"""Pictures to train a backbone on: of recorded episodes, and of a twin that is moved about."""

from collections.abc import Iterator, Sequence
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

__all__ = ["Album", "NoPictures", "Pictures", "recorded", "rendered"]

Picture = NDArray[np.uint8]
LENGTHS = (8, 30)
"""Steps of an episode of a moved twin, at least and fewer than: short, so that many begin."""
NOISES = (0.1, 0.8)
"""Of the scripted expert, from a steady hand to one that misses."""
WANDERING = 0.3
"""Share of episodes with random motions and no goal."""
DRIFT, PUSH = 0.8, 0.36
"""A random motion: how much of the last action stays, and the standard deviation of what is added."""


class NoPictures(SerlError):
    """There is nothing to look at."""


class Pictures(NamedTuple):
    """Square RGB pictures, and through which eye each was seen."""

    images: Tensor
    """uint8. Shape: (n, side, side, 3)"""
    eyes: Tensor
    """Index into `names`. Shape: (n,)"""
    names: tuple[str, ...]
    """Of eyes: task and camera."""

    def counts(self) -> dict[str, int]:
        """How many of each eye."""
        return {name: int((self.eyes == index).sum()) for index, name in enumerate(self.names)}


class Album:
    """Collects pictures, resized to one side; of more than fit, a random selection in which all are equally likely.

    Args:
        side: Of the square pictures [pixels].
        capacity: How many to keep.
        seed: Of the selection.
    """

    def __init__(self, side: int, capacity: int, seed: int) -> None:
        self._side, self._capacity = side, capacity
        self._rng = np.random.default_rng(seed)
        self._names: dict[str, int] = {}
        self._kept: list[tuple[int, Picture]] = []
        self._seen = 0

    def add(self, name: str, picture: Picture) -> None:
        """Shape: (height, width, 3)"""
        self._seen += 1
        place = len(self._kept)
        if place == self._capacity:
            place = int(self._rng.integers(self._seen))
            if place >= self._capacity:
                return
        entry = self._names.setdefault(name, len(self._names)), self._resized(picture)
        self._kept[place : place + 1] = [entry]

    def __len__(self) -> int:
        """How many pictures are kept."""
        return len(self._kept)

    def pictures(self) -> Pictures:
        """All that were kept.

        Raises:
            NoPictures: There are none.
        """
        if not self._kept:
            raise NoPictures(
                "no pictures: these episodes observe no camera. Record some (serl demo record TASK --scripted "
                "--cameras front wrist), or look at a twin (--task TASK)"
            )
        eyes, images = zip(*self._kept, strict=True)
        return Pictures(torch.from_numpy(np.stack(images)), torch.tensor(eyes), tuple(self._names))

    def _resized(self, picture: Picture) -> Picture:
        if picture.shape[:2] == (self._side, self._side):
            return picture.copy()
        size = (self._side, self._side)
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def recorded(paths: Sequence[Path]) -> Iterator[tuple[str, Picture]]:
    """Every picture of every episode, with the name of its eye.

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
            for step in episode.steps:
                for key in episode.spec.image_keys:
                    yield f"{episode.spec.task} {key}", step.observation[key]


def rendered(environment: Environment, seed: int) -> Iterator[tuple[str, Picture]]:
    """Pictures of a twin without end: short episodes of its scripted expert, where it has one, with little to much
    noise, and of random motions.

    Raises:
        NoPictures: The environment observes no camera.
    """
    spec = environment.spec
    if not spec.image_keys:
        raise NoPictures(
            f"{spec.task} shows no picture; name its cameras (--cameras), or give recorded episodes"
        )
    rng = np.random.default_rng(seed)
    episode = 0
    while True:
        for observation in _episode(environment, rng, 100_000 * (seed + 1) + episode):
            for key in spec.image_keys:
                yield f"{spec.task} {key}", observation[key]
        episode += 1


def _episode(environment: Environment, rng: np.random.Generator, seed: int) -> Iterator[Observation]:
    observation = environment.reset(seed=seed)
    expert = None
    if environment.has_expert and rng.uniform() >= WANDERING:
        expert = environment.make_expert(float(rng.uniform(*NOISES)), seed)
        expert.reset()
    action = np.zeros(environment.spec.action_dim, np.float32)
    for _ in range(int(rng.integers(*LENGTHS))):
        yield observation
        if expert is not None:
            chosen = expert.act(observation)
        else:
            action = np.clip(DRIFT * action + PUSH * rng.standard_normal(action.shape), -1.0, 1.0).astype(
                np.float32
            )
            chosen = environment.scale.to_env(action)
        observation, _, terminated, truncated, _ = environment.step(chosen)
        if terminated or truncated:
            return
