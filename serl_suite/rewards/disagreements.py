"""Frames on which a classifier and the truth differ, kept as episodes to learn from.

They are episodes of frames and not of actions: these would be the wrong demonstrations. Their spec has an action of no
numbers, which nothing that learns to act accepts.
"""

from pathlib import Path

import msgspec
import numpy as np

from serl_suite.data.episodes import Episode, write_episode
from serl_suite.wire.messages import Observation, Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

__all__ = ["Disagreements"]

MOST = 2000
"""Frames kept; a classifier that is wrong all the time must not fill the disk."""


class Disagreements:
    """Collects the frames of an episode, and writes them when the next one begins.

    Args:
        folder: Receives a parquet file for each episode that has some; the steps' `success` is the truth.
        spec: Of the environment.
        session_id: Names the episodes.
    """

    def __init__(self, folder: Path, spec: EnvSpec, session_id: str) -> None:
        nothing = ArraySpec(shape=(0,), dtype="float32")
        self._spec = msgspec.structs.replace(spec, action=nothing)
        self._folder, self._session_id = folder, session_id
        self._steps: list[Step] = []
        self._number = self.kept = 0

    def keep(self, observation: Observation, truth: bool, time_s: float) -> None:
        """One frame more of this episode; nothing once there are `MOST`."""
        if self.kept >= MOST:
            return
        self.kept += 1
        index = len(self._steps)
        self._steps.append(
            Step(
                seq=index, episode=self._number, index=index, observation=observation, success=truth,
                action=np.zeros(0, np.float32) if index else None, time_s=time_s,
            )
        )  # fmt: skip

    def end_episode(self) -> None:
        """Writes what there is.

        Raises:
            DiskFull: Nothing was written.
        """
        if self._steps:
            episode = Episode(
                session_id=self._session_id, number=self._number, spec=self._spec, steps=self._steps
            )
            write_episode(self._folder / f"{self._session_id}-{self._number:06d}.parquet", episode)
        self._steps = []
        self._number += 1
