"""The last few pictures of each camera as one observation, where a single one does not show how things move."""

from collections import deque
from collections.abc import Mapping

import msgspec

from serl_suite.wire.spaces import Array, EnvSpec, Observation

__all__ = ["FrameStack"]


class FrameStack:
    """The picture of camera `front` that is k steps old is observed as `front-k`, like one more camera's. An episode
    begins with copies of its first picture.

    Args:
        spec: Of the environment.
        frames: Pictures of each camera; 1: only the newest.
    """

    def __init__(self, spec: EnvSpec, frames: int) -> None:
        self._own, self._cameras = spec, spec.image_keys
        ages = range(1, frames) if self._cameras else ()
        older = {f"{key}-{age}": spec.observation[key] for age in ages for key in self._cameras}
        self.spec = msgspec.structs.replace(spec, observation={**spec.observation, **older})
        """With the older pictures."""
        self._past: deque[Observation] = deque(maxlen=max(0, frames - 1))
        """Newest first."""

    def reset(self, observation: Array | Mapping[str, object]) -> Observation:
        """An episode begins with this."""
        first = self._own.wrap(observation)
        self._past.extend([first] * (self._past.maxlen or 0))
        return self._joined(first)

    def add(self, observation: Array | Mapping[str, object]) -> Observation:
        """The next one of the episode."""
        newest = self._own.wrap(observation)
        joined = self._joined(newest)
        self._past.appendleft(newest)
        return joined

    def _joined(self, newest: Observation) -> Observation:
        older = {
            f"{key}-{age}": past[key] for age, past in enumerate(self._past, start=1) for key in self._cameras
        }
        return {**newest, **older}
