"""An eye on a wire twin: draws what one of its cameras sees, a process of its own, as a camera of metal is a device.

    python -m serl_envs.twins.eye SCENE CAMERA SIDE RATE_HZ FD

It asks the twin where everything is, over the scene's channel, and writes reports and pictures to the inherited socket
FD, until that is closed or the twin has ended.
"""

import os
import socket
import sys
import time
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import zmq

from serl_envs.remote_scene import RemoteScene, TwinUnreachable
from serl_envs.twins.fci.command_line import make_task
from serl_envs.twins.fci.scene_messages import (
    MAX_MESSAGE_BYTES,
    SceneState,
    ShowScene,
    decode_answer,
    encode,
)
from serl_envs.twins.rendering import Painter
from serl_suite.errors import SerlError
from serl_suite.wire.camera_link import LinkClosed, ReportLink
from serl_suite.wire.camera_messages import Report, Stamp
from serl_suite.wire.endpoint import connect_dealer

__all__ = ["UnknownEye", "main", "shown_task"]

ANSWER_MS = 3000


class UnknownEye(SerlError):
    """The twin's scene has no such camera."""


def shown_task(address: str) -> str:
    """Returns the id of the task whose scene the twin there has.

    Raises:
        AddressError: The address is none, or on another machine.
        WireError: What answers is no wire twin of this version.
        TwinUnreachable: Nothing answers.
    """
    with zmq.Context() as context, connect_dealer(context, address, None, MAX_MESSAGE_BYTES) as socket:
        socket.send(encode(ShowScene(number=1)))
        answer = decode_answer(socket.recv()) if socket.poll(ANSWER_MS) else None
    if not isinstance(answer, SceneState):
        raise TwinUnreachable(f"no wire twin answers at {address}; start it: serl twin franka")
    return answer.task


class Grain:
    """The noise of a sensor: a level up or down. Without it, a scene at rest would look like a camera that has frozen.

    Args:
        seed: Of the noise.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def on(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Returns the picture with noise. Shape: as it has."""
        noise = self._rng.integers(-1, 2, pixels.shape, np.int8)
        noisy: npt.NDArray[np.uint8] = np.clip(pixels.astype(np.int16) + noise, 0, 255).astype(np.uint8)
        return noisy


def main(arguments: list[str]) -> int:
    """Draws until nobody wants to see more; 1 where it could not."""
    address, camera, side, rate_hz, fd = arguments
    link = ReportLink(socket.socket(fileno=int(fd)))
    with suppress(LinkClosed):
        try:
            _draw(link, address, camera, int(side), 1.0 / float(rate_hz))
        except LinkClosed:
            raise
        except SerlError as error:
            link.send(Report(fault="unplugged", detail=str(error)))
    return 1


def _draw(link: ReportLink, address: str, camera: str, side: int, period_s: float) -> None:
    """Returns only by an error.

    Raises:
        SerlError: The twin, its scene or OpenGL is not there.
        LinkClosed: Nobody reads any more.
    """
    task_id = shown_task(address)
    scene = RemoteScene(make_task(task_id), task_id, address)
    names = [scene.model.camera(i).name for i in range(scene.model.ncam)]
    if camera not in names:
        raise UnknownEye(f"the twin has no camera {camera!r} but {', '.join(names)}; correct the rig")
    painter, grain, sequence, due = Painter(scene.model), Grain(0), 0, time.monotonic()
    while True:
        scene.look()
        picture = grain.on(painter.picture(scene.data, camera, side, shadows=False))
        sequence += 1
        stamp = Stamp(sequence=sequence, device_s=scene.time_s, host_ns=time.monotonic_ns())
        link.send(Report(stamp=stamp, size=side), picture)
        due = max(due + period_s, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
