"""What the learner has published, and what an actor that asks gets of it."""

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from serl_suite.wire.codec import Buffer, Codec
from serl_suite.wire.messages import Weights, WeightsRequest

__all__ = ["WeightsShelf"]

Arrays = dict[str, npt.NDArray[Any]]
Frames = list[Buffer]

KEPT_VERSIONS = 8
"""For actors that want every version in turn."""


class WeightsShelf:
    """The last few versions, and who waits for the next. `publish` belongs to one thread, the rest to another."""

    def __init__(self) -> None:
        self._versions: deque[tuple[int, Arrays]] = deque(maxlen=KEPT_VERSIONS)
        self._frames: dict[tuple[int, bool], Frames] = {}
        self._parked: dict[bytes, WeightsRequest] = {}
        self._answered = -1
        """The newest version when parked requests were last looked at."""
        self._codec = Codec()

    @property
    def newest(self) -> int:
        """-1: nothing yet."""
        return self._versions[-1][0] if self._versions else -1

    def publish(self, version: int, arrays: Arrays) -> None:
        """Raises: ValueError, unless versions grow."""
        if version <= self.newest:
            raise ValueError(f"version {version} was published after {self.newest}")
        self._versions.append((version, arrays))

    def ask(self, identity: bytes, request: WeightsRequest) -> Frames | None:
        """The answer as a message; None where there is nothing newer yet: `answers` will have it then."""
        frames = self._answer(request)
        if frames is None:
            self._parked[identity] = request
        else:
            self._parked.pop(identity, None)
        return frames

    def answers(self) -> list[tuple[bytes, Frames]]:
        """What parked requests get, where something was published since the last call."""
        newest = self.newest
        if newest == self._answered:
            return []
        self._answered = newest
        parked, self._parked = self._parked, {}
        asked = [(identity, self.ask(identity, request)) for identity, request in parked.items()]
        return [(identity, frames) for identity, frames in asked if frames is not None]

    def forget(self, identity: bytes) -> None:
        """The peer does not want an answer any more."""
        self._parked.pop(identity, None)

    def _answer(self, request: WeightsRequest) -> Frames | None:
        """The newest version; in order, the next one that is kept, unless the actor has none yet."""
        newer = [item for item in list(self._versions) if item[0] > request.have_version]
        if not newer:
            return None
        next_in_order = request.in_order and request.have_version >= 0
        version, arrays = newer[0] if next_in_order else newer[-1]
        frames = self._frames.get((version, request.half))
        if frames is None:
            if request.half:
                arrays = {k: a.astype(np.float16) if a.dtype.kind == "f" else a for k, a in arrays.items()}
            frames = self._codec.encode(Weights(version=version, arrays=arrays))
            kept = {item[0] for item in list(self._versions)}
            self._frames = {key: f for key, f in self._frames.items() if key[0] in kept}
            self._frames[version, request.half] = frames
        return frames
