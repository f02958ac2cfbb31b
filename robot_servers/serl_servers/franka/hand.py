"""The Franka Hand over its own protocol, without waiting for it.

pylibfranka's Gripper would hold the interpreter for as long as the fingers move, and with it the whole service.
"""

import errno
import logging
import math
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress

from serl_hardware.franka import fr3

from serl_servers.franka.driver import DriverError

__all__ = ["Hand"]

PORT = 1338
VERSION = 3
GREETING_S = 2.0
"""In which a hand connects, says its version and sends a state."""
LOOK_S = 0.005
OPEN_M = 0.08
SPEED_M_PER_S = 2 * fr3().finger_max_speed
"""Of the opening: both fingers as fast as they go."""
CLOSED_M = 0.005
"""An opening below this asks to hold what is between the fingers; any other is a place to move to."""
ANY_WIDTH_M = 0.1
"""Tolerance of a grasp: whatever is between the fingers is held."""

_HEADER = struct.Struct("<HII")  # command, command id, size with the header
_VERSION_AND_PORT = struct.Struct("<HH")
_STATUS = struct.Struct("<H")
_GRASP = struct.Struct("<5d")  # width, inner and outer tolerance, speed, force
_MOVE = struct.Struct("<2d")  # width, speed
_STATE = struct.Struct("<Idd?H")  # message id, width, greatest width, grasped, temperature
_CONNECT, _HOMING, _GRASPING, _MOVING, _STOP = range(5)
_SUCCESS = 0
LONGEST = 4096
"""Of an answer [bytes]."""

_log = logging.getLogger(__name__)


class Hand:
    """Starts motions of the fingers and reads their state; nothing here waits for the hand.

    Not of use until `greeting` has ended.

    Args:
        ip: The arm's address.
        force_n: With which the fingers close.
    """

    def __init__(self, ip: str, force_n: float) -> None:
        self.width = self.target = 0.0
        """Opening, measured and commanded last [m]."""
        self.is_grasped = False
        self.states = 0
        """How many have come."""
        self.is_gone = False
        """It has closed the connection: another `Hand` is needed."""
        self._ip, self._force_n = ip, force_n
        self._number = 0
        self._running: int | None = None
        self._unread = b""
        self._sender = ""
        """Address that states are taken from."""
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for end in (self._datagrams, self._stream):
            end.setblocking(False)

    @classmethod
    def found(cls, ip: str, force_n: float) -> "Hand":
        """Returns one that has greeted. Raises: DriverError, as `greeting`."""
        hand = cls(ip, force_n)
        for _ in hand.greeting():
            time.sleep(LOOK_S)
        return hand

    @property
    def busy(self) -> bool:
        """Whether a motion has not been answered yet."""
        return self._running is not None

    def fileno(self) -> int:
        """Of the states' socket, to wait for."""
        return self._datagrams.fileno()

    def move(self, width: float, force_n: float | None = None) -> None:
        """Starts to move the fingers; a motion under way ends first. Closing holds whatever is in between.

        Raises:
            DriverError: The hand is gone.
        """
        self._stop()
        self.target = width = min(max(width, 0.0), OPEN_M)
        if width < CLOSED_M:
            force = self._force_n if force_n is None else force_n
            payload = _GRASP.pack(width, ANY_WIDTH_M, ANY_WIDTH_M, SPEED_M_PER_S, force)
            self._running = self._send(_GRASPING, payload)
        else:
            self._running = self._send(_MOVING, _MOVE.pack(width, SPEED_M_PER_S))

    def home(self) -> None:
        """Starts to find out how far the fingers open; they are open then.

        Raises:
            DriverError: The hand is gone.
        """
        self._stop()
        self.target, self._running = OPEN_M, self._send(_HOMING, b"")

    def look(self) -> None:
        """Takes in what the hand has said."""
        with suppress(BlockingIOError):
            while True:
                packet, (sender, _) = self._datagrams.recvfrom(64)
                if sender == self._sender and len(packet) == _STATE.size:
                    self._take(packet)
        try:
            heard = self._stream.recv(4096)
        except BlockingIOError:
            pass
        except OSError:  # reset, timed out, no route
            self.is_gone = True
        else:
            self.is_gone = not heard
            self._unread += heard
        while len(self._unread) >= _HEADER.size + _STATUS.size:
            _, number, size = _HEADER.unpack_from(self._unread)
            if not _HEADER.size + _STATUS.size <= size <= LONGEST:  # no hand that this knows
                self.is_gone = True
                return
            if len(self._unread) < size:
                return
            (status,) = _STATUS.unpack_from(self._unread, _HEADER.size)
            self._unread = self._unread[size:]
            if number == self._running:
                self._running = None
                if status != _SUCCESS:
                    _log.warning("the hand did not get to %.3f m (status %d)", self.target, status)

    def _take(self, packet: bytes) -> None:
        _, width, _, is_grasped, _ = _STATE.unpack(packet)
        if math.isfinite(width):
            self.width, self.is_grasped = width, is_grasped
            self.states += 1

    def greeting(self) -> Iterator[None]:
        """Goes on, whenever it is resumed, until the hand is connected and its opening known.

        Raises:
            DriverError: No hand answers, or one of another version; this one is closed then.
        """
        has_greeted = False
        try:
            yield from self._connecting()
            yield from self._greeting()
            has_greeted, self.target = True, self.width
        except OSError as error:
            raise DriverError(
                f"no hand at {self._ip}:{PORT} ({error}); check its cable, or say that there is none with --no-hand"
            ) from error
        finally:
            if not has_greeted:
                self.close()

    def close(self) -> None:
        """Lets it go; twice is once."""
        self._stream.close()
        self._datagrams.close()

    def _connecting(self) -> Iterator[None]:
        deadline = time.monotonic() + GREETING_S
        pending = self._stream.connect_ex((self._ip, PORT))
        while pending == errno.EINPROGRESS:
            yield
            _require_before(deadline)
            if select.select([], [self._stream], [], 0.0)[1]:
                pending = self._stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if pending:
            raise OSError(pending, os.strerror(pending))
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sender = self._stream.getpeername()[0]
        self._datagrams.bind((self._stream.getsockname()[0], 0))

    def _greeting(self) -> Iterator[None]:
        deadline = time.monotonic() + GREETING_S
        self._send(_CONNECT, _VERSION_AND_PORT.pack(VERSION, self._datagrams.getsockname()[1]))
        reply = b""
        while len(reply) < _HEADER.size + _VERSION_AND_PORT.size:
            yield
            _require_before(deadline)
            with suppress(BlockingIOError):
                part = self._stream.recv(64)
                if not part:
                    raise ConnectionError("it closed the connection")
                reply += part
        status, version = _VERSION_AND_PORT.unpack_from(reply, _HEADER.size)
        if status != 0:
            raise DriverError(
                f"the hand at {self._ip} speaks version {version} and this server {VERSION}; update the older of the "
                "two"
            )
        while self.states == 0 and not self.is_gone:
            yield
            _require_before(deadline)
            self.look()

    def _stop(self) -> None:
        if self._running is not None:
            self._send(_STOP, b"")

    def _send(self, command: int, payload: bytes) -> int:
        self._number += 1
        try:
            self._stream.sendall(_HEADER.pack(command, self._number, _HEADER.size + len(payload)) + payload)
        except OSError as error:
            raise DriverError(f"the hand is gone ({error}); check its cable, then recover") from error
        return self._number


def _require_before(deadline: float) -> None:
    """Raises: TimeoutError."""
    if time.monotonic() > deadline:
        raise TimeoutError("timed out")
