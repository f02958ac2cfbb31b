"""Pictures that must not be judged or learned from: black ones, and ones that stand still while the robot moves."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serl_suite.data.episodes import Episode
from serl_suite.errors import SerlError
from serl_suite.wire.messages import Observation
from serl_suite.wire.spaces import EnvSpec

__all__ = ["BadPicture", "PictureWatch", "StoppedCamera", "stale_steps"]

log = logging.getLogger(__name__)

BLACK = 8
"""Of 255: no pixel of a black picture is brighter, a covered camera's noise included."""
EVERY = 4
"""Pixel in each direction that is looked at."""
STILL_S = 1.0
MOVED = 0.03
"""Change of any number of a pose [m, rad], or of the state where it has none. A twin that is as good as at rest shows
the same picture for long, and rightly so, though forces on it change; a real camera's noise never repeats itself."""


class BadPicture(SerlError):
    """A camera shows black, or has stopped."""


class StoppedCamera(BadPicture):
    """A camera shows the same picture again and again."""


class PictureWatch:
    """Looks at the pictures of an episode in order.

    Args:
        cameras: Whose pictures to look at.
        spec: Of the environment.
    """

    def __init__(self, cameras: Sequence[str], spec: EnvSpec) -> None:
        self._cameras, self._spec = tuple(cameras), spec
        self._most = max(1, round(STILL_S * spec.rate_hz))
        poses = tuple(key for key in spec.state_keys if "pose" in key)
        self._moving = poses or spec.state_keys
        self.reset()

    def reset(self) -> None:
        """An episode begins."""
        self._since: dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]] = {}
        self._repeats = dict.fromkeys(self._cameras, 0)

    def check(self, observation: Observation) -> None:
        """Looks at the next observation.

        Raises:
            BadPicture: A camera shows black; it is named.
            StoppedCamera: Likewise, and on every further observation until its picture changes.
        """
        parts = [observation[key].astype(np.float32).ravel() for key in self._moving]
        state = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        for camera in self._cameras:
            picture = observation[camera]
            if picture[::EVERY, ::EVERY].max() <= BLACK:
                raise BadPicture(
                    f"camera {camera} shows black; take off its cover, turn on the light, or look at its exposure"
                )
            self._check_moves(camera, picture, state)

    def _check_moves(
        self, camera: str, picture: npt.NDArray[np.uint8], state: npt.NDArray[np.float32]
    ) -> None:
        first = self._since.get(camera)
        if first is None or not np.array_equal(first[0], picture):
            self._since[camera], self._repeats[camera] = (picture, state), 0
            return
        self._repeats[camera] += 1
        moved = not state.size or bool(np.abs(state - first[1]).max() > MOVED)
        if self._repeats[camera] >= self._most and moved:
            raise StoppedCamera(
                f"camera {camera} has shown the same picture for {self._repeats[camera] / self._spec.rate_hz:.1f} s "
                "while the robot moved; reconnect it (`serl camera list` shows what answers)"
            )


def stale_steps(file: Path, episode: Episode, cameras: Sequence[str]) -> frozenset[int]:
    """Places of the steps on which a camera had stopped, with a warning. It is no error: an arm that a simulation's
    camera does not see leaves its picture the same, too.

    Raises:
        BadPicture: A camera shows black; file, step and camera are named.
    """
    watch, first = PictureWatch(cameras, episode.spec), ""
    places: list[int] = []
    for place, step in enumerate(episode.steps):
        try:
            watch.check(step.observation)
        except StoppedCamera as error:
            first = first or f"{file}, step {step.index}: {error}"
            places.append(place)
        except BadPicture as error:
            raise BadPicture(f"{file}, step {step.index}: {error}. Leave this episode out") from error
    if places:
        log.warning("%s; such steps are left out: %d of %d", first, len(places), len(episode.steps))
    return frozenset(places)
