"""A client of a camera server: sees the newest pictures of all cameras, and never waits long for them."""

import time
from contextlib import suppress

import zmq

from serl_suite.errors import SerlError
from serl_suite.wire.camera_messages import (
    MAX_MESSAGE_BYTES,
    NEVER_S,
    STALE_S,
    Pixels,
    ShowPictures,
    Sight,
    Sights,
    decode_answer,
    encode,
)
from serl_suite.wire.endpoint import connect_dealer
from serl_suite.wire.keys import ClientKeys

__all__ = ["CameraClient", "CamerasUnreachable"]

PATIENCE_S = 0.02
"""An answer takes a millisecond. One that is late comes with the next; what is shown until then grows older."""
LAST_CHANCE_S = 0.25
"""So long an answer is waited for where the last one is too old to be shown, as after a reset during which nobody
looked: on a busy machine it may take longer than usual."""
HELLO_S = 3.0
RETRY_S = 1.0
"""A server that has not answered for so long is asked again; until then it is not, so that no queue grows."""


class CamerasUnreachable(SerlError):
    """The camera server does not answer."""


class CameraClient:
    """Belongs to one thread.

    Args:
        address: Of the camera server, tcp://HOST:PORT.
        keys: Needed where it is on another machine.
        hello_s: How long its first answer is waited for.

    Raises:
        AddressError: The address is none, or on another machine and there are no keys.
        CamerasUnreachable: No server answers there.
    """

    def __init__(self, address: str, keys: ClientKeys | None = None, *, hello_s: float = HELLO_S) -> None:
        self.address = address
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = connect_dealer(self._context, address, keys, MAX_MESSAGE_BYTES)
        self._number = 0
        self._sights = Sights(number=0, sights=(), skew_s=0.0)
        self._pictures: dict[str, Pixels] = {}
        self._asked_at: dict[int, float] = {}
        self._sent_at = -NEVER_S
        """Before that the answer cannot have left the server, so that no picture is older than it seems."""
        try:
            self._ask(ShowPictures(number=self._next()), hello_s)
            if self._sights.number == 0:
                raise CamerasUnreachable(
                    f"no camera server answers at {address}; start it: serl camera serve --rig RIG"
                )
        except SerlError:
            self.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """Of the server's cameras."""
        return tuple(sight.camera for sight in self._sights.sights)

    @property
    def skew_s(self) -> float:
        """Between the first and the last arrival among the pictures."""
        return self._sights.skew_s

    def look(self) -> None:
        """Takes over the newest pictures; the same as before, growing older, where the server does not answer at once.

        Raises:
            WireError: What answers is no camera server of this version.
        """
        self._ask(ShowPictures(number=self._next()), PATIENCE_S)

    def await_next(self, camera: str, timeout_s: float) -> bool:
        """Waits for a picture of that camera newer than the one shown; whether there is one.

        Raises:
            WireError: As `look`.
        """
        before = self.sight(camera).stamp.sequence
        request = ShowPictures(number=self._next(), camera=camera, after=before, wait_s=timeout_s)
        self._ask(request, timeout_s + PATIENCE_S)
        return self.sight(camera).stamp.sequence > before

    def sight(self, camera: str) -> Sight:
        """What is known of a camera's picture.

        Raises:
            KeyError: The server has no such camera.
        """
        for sight in self._sights.sights:
            if sight.camera == camera:
                return sight
        raise KeyError(camera)

    def picture(self, camera: str) -> Pixels:
        """The camera's picture; read-only. Shape: (size, size, 3), RGB; (0, 0, 3) where there has been none."""
        return self._pictures[camera]

    def age_s(self, camera: str) -> float:
        """How old the picture is by now, at most."""
        return self.sight(camera).age_s + time.monotonic() - self._sent_at

    def fault(self, camera: str) -> tuple[str, str]:
        """Why the camera's picture is not what it sees now, and what to do; both empty where it is."""
        sight = self.sight(camera)
        if sight.fault:
            return sight.fault, sight.detail
        if self.age_s(camera) > STALE_S:
            text = f"the camera server at {self.address} is silent; look why, and start it: serl camera serve --rig RIG"
            return "server_silent", text
        return "", ""

    def close(self) -> None:
        """Leaves; twice is once."""
        self._socket.close(0)
        self._context.term()

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _ask(self, request: ShowPictures, timeout_s: float) -> None:
        """Returns with the answer, or without it after a while; one that comes later counts, too."""
        self._receive()
        now = time.monotonic()
        number, asked_at = max(self._asked_at.items(), default=(0, -NEVER_S))
        if now - asked_at > RETRY_S:
            number = request.number
            self._asked_at = {number: now}
            if now - self._sent_at > STALE_S:
                timeout_s = max(timeout_s, LAST_CHANCE_S)
            with suppress(zmq.Again):  # a full queue: nobody answers either
                self._socket.send(encode(request), zmq.NOBLOCK)
        while self._sights.number < number and (left_s := now + timeout_s - time.monotonic()) > 0:
            if self._socket.poll(int(left_s * 1e3) + 1):
                self._receive()

    def _receive(self) -> None:
        """Takes over what has been answered."""
        while self._socket.poll(0):
            frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            sights, pictures = decode_answer([frame.buffer for frame in frames])
            if (asked_at := self._asked_at.pop(sights.number, None)) is not None:
                self._sights, self._sent_at = sights, asked_at + sights.waited_s
                self._pictures = dict(zip(self.names, pictures, strict=True))
