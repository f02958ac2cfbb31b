"""The arm at the other end of the cable: does it answer, what does it speak, and do its packets come in time."""

import socket
import struct
import time
from collections.abc import Iterator
from itertools import pairwise

from serl_servers.doctor.finding import Finding, failed, ok, warning

__all__ = ["check_arm", "check_hand"]

PORT, HAND_PORT = 1337, 1338
VERSION = 10
CONNECT = 0
STATE_BYTES = 1377
TIMEOUT_S = 2.0
LISTEN_S = 1.0
LATE_S = 3e-3
"""Three packets in a row were late then; twenty end a motion."""
_REQUEST = struct.Struct("<IIIHH")  # command, its number, size; version, port
_REPLY = struct.Struct("<IIIBH")  # the same; status, version


def check_arm(ip: str) -> Iterator[Finding]:
    """Connects to the arm as a client would, and leaves."""
    try:
        began = time.monotonic()
        stream = socket.create_connection((ip, PORT), TIMEOUT_S)
    except OSError as error:
        yield failed(
            "arm", f"nothing at {ip}:{PORT} ({error}); check address and cable, and activate FCI in Desk. A twin is "
            f"started with `serl twin franka --port-ip {ip}`"
        )  # fmt: skip
        return
    with stream, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as states:
        yield ok("arm", f"{ip} answers, {1e3 * (time.monotonic() - began):.1f} ms")
        states.bind((stream.getsockname()[0], 0))
        states.settimeout(TIMEOUT_S)
        yield from _greet(stream, states)


def check_hand(ip: str) -> Finding:
    """Whether the hand's port is open."""
    try:
        with socket.create_connection((ip, HAND_PORT), TIMEOUT_S):
            return ok("hand", f"{ip}:{HAND_PORT} answers")
    except OSError as error:
        return failed(
            "hand", f"nothing at {ip}:{HAND_PORT} ({error}); check its cable, or say hand: false in the rig"
        )


def _greet(stream: socket.socket, states: socket.socket) -> Iterator[Finding]:
    stream.sendall(_REQUEST.pack(CONNECT, 1, _REQUEST.size, VERSION, states.getsockname()[1]))
    reply = b""
    try:
        while len(reply) < _REPLY.size:
            part = stream.recv(_REPLY.size - len(reply))
            if not part:
                raise ConnectionError("it closed the connection")
            reply += part
    except OSError as error:
        yield failed("firmware", f"it does not greet ({error}): another client has the arm? End that first")
        return
    *_, status, version = _REPLY.unpack(reply)
    if status != 0:
        yield failed(
            "firmware",
            f"it speaks FCI {version} and pylibfranka {VERSION}; update the arm to system 5.9 or newer",
        )
        return
    yield ok("firmware", f"FCI {version}")
    yield _packets(states)


def _packets(states: socket.socket) -> Finding:
    """Counts the arm's packets for a second."""
    arrivals: list[float] = []
    try:
        while not arrivals or arrivals[-1] - arrivals[0] < LISTEN_S:
            if len(states.recv(2048)) != STATE_BYTES:
                return failed("packets", f"its states are not of {STATE_BYTES} bytes: another firmware")
            arrivals.append(time.monotonic())
    except TimeoutError:
        return failed("packets", "no states come by UDP; look for a firewall between here and the arm")
    gap = max(b - a for a, b in pairwise(arrivals))
    text = f"{len(arrivals) - 1} in a second, the longest gap {1e3 * gap:.1f} ms"
    if gap > LATE_S:
        return warning(
            "packets", f"{text}; connect the arm by a cable of its own, without a switch, and see kernel"
        )
    return ok("packets", text)
