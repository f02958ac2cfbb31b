"""The camera server: shows clients what all cameras of a rig see."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import zmq

from serl_servers.cameras.calibration import read_calibration
from serl_servers.cameras.channel import Channel
from serl_servers.cameras.matching import matching, skew_s
from serl_suite.rig import BadRig, Rig
from serl_suite.wire.camera_messages import (
    MAX_MESSAGE_BYTES,
    ShowPictures,
    Sights,
    decode_request,
    encode,
)
from serl_suite.wire.endpoint import AddressError, PortInUse, bind_router
from serl_suite.wire.keys import server_keys
from serl_suite.wire.messages import WireError

__all__ = ["CameraService"]

LOOKED_AFTER_S = 0.1
QUEUED = 2
"""Answers to a client that does not read; each may hold megabytes."""

_log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    """A client that waits for a newer picture."""

    request: ShowPictures
    since: float

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.since + self.request.wait_s


class CameraService:
    """Belongs to one thread; each camera has a process of its own.

    Args:
        rig: Whose cameras.

    Raises:
        BadRig: It lists no camera.
        BadCalibration: A camera's calibration is missing, or another camera's.
        KeysError: A key is missing.
        AddressError, PortInUse: Nothing can listen there.
    """

    def __init__(self, rig: Rig) -> None:
        if not rig.cameras:
            raise BadRig(
                f"{rig.source} lists no cameras; add them (serl camera list shows those that are there)"
            )
        for camera in rig.cameras:
            if camera.calibration is not None:
                read_calibration(Path(camera.calibration), camera)
        keys = None if rig.keys is None else server_keys(rig.server_key)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._router, self._authenticator = bind_router(
                self._context, rig.camera_server, keys, MAX_MESSAGE_BYTES, queued=QUEUED
            )
        except PortInUse as error:
            self._context.term()
            raise PortInUse(
                f"{rig.camera_server} is in use by another camera server? End it, or change camera_server in "
                f"{rig.source}"
            ) from error
        except AddressError:
            self._context.term()
            raise
        self.channels = [Channel(camera, rig.scene or "") for camera in rig.cameras]
        self._waiting: dict[bytes, _Waiting] = {}
        """By client; who asks again has given up on what was asked before."""
        self._looked_after_at = 0.0

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Serves until told to stop."""
        while not should_stop():
            self._turn()

    def close(self) -> None:
        """Lets the cameras go."""
        for channel in self.channels:
            channel.close()
        self._router.close(0)
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()

    def _turn(self) -> None:
        # the processes behind the channels change, so that what is polled is put together anew
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        for channel in self.channels:
            if not channel.has_ended:
                poller.register(channel.fileno(), zmq.POLLIN)
        poller.poll(int(LOOKED_AFTER_S * 1e3))
        for channel in self.channels:
            channel.take()
        if time.monotonic() - self._looked_after_at > LOOKED_AFTER_S:
            self._looked_after_at = time.monotonic()
            for channel in self.channels:
                channel.look_after()
        self._receive()
        for identity, waiting in list(self._waiting.items()):
            if waiting.over or self._has_newer(waiting.request):
                del self._waiting[identity]
                self._answer(identity, waiting)

    def _receive(self) -> None:
        """Takes all requests that have come; of each client the last one counts."""
        while True:
            try:
                identity, *frames = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                if len(frames) != 1:
                    raise WireError(f"{len(frames)} frames instead of one")
                self._waiting[identity] = _Waiting(decode_request(frames[0]), time.monotonic())
            except WireError as error:
                _log.warning("dropped a message: %s", error)

    def _has_newer(self, request: ShowPictures) -> bool:
        return any(
            channel.shots and channel.shots[-1].stamp.sequence > request.after
            for channel in self.channels
            if channel.camera.name == request.camera
        )

    def _answer(self, identity: bytes, waiting: _Waiting) -> None:
        request = waiting.request
        seeing = [channel for channel in self.channels if channel.shots and not channel.fault[0]]
        shots = matching([channel.shots for channel in seeing])
        chosen = {channel.camera.name: shot for channel, shot in zip(seeing, shots, strict=True)}
        for channel in seeing:
            if channel.camera.name == request.camera:  # it was asked for by name
                chosen[request.camera] = channel.shots[-1]
        frames, sights = [], []
        for channel in self.channels:
            shot = chosen.get(channel.camera.name) or (channel.shots[-1] if channel.shots else None)
            sights.append(channel.sight(shot))
            frames.append(b"" if shot is None else shot.pixels.data)
        skew, waited_s = skew_s(list(chosen.values())), time.monotonic() - waiting.since
        header = encode(Sights(number=request.number, sights=tuple(sights), skew_s=skew, waited_s=waited_s))
        with suppress(zmq.ZMQError):  # it has gone, or reads nothing
            self._router.send_multipart([identity, header, *frames], zmq.NOBLOCK)
