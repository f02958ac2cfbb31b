"""The two sockets of the wire: where they may listen, and with which limits."""

import contextlib
import ipaddress
import os
from urllib.parse import urlsplit

import zmq
from zmq.auth.thread import ThreadAuthenticator

from serl_suite.errors import SerlError
from serl_suite.wire.keys import ClientKeys, ServerKeys

__all__ = ["AddressError", "PortInUse", "Waker", "bind_router", "connect_dealer", "encrypt", "is_loopback"]

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Most that one message may hold; two raw 1080p images take 12 MiB."""
CUT_OFF = 4
"""Frames above `CUT_OFF` x the limit are not even received: libzmq drops the connection."""


class AddressError(SerlError):
    """An address that cannot be used, or not without keys."""


class PortInUse(SerlError):
    """Another process listens there."""


class Waker:
    """Interrupts a poller from another thread."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wake(self) -> None:
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        os.close(self.fd)


def is_loopback(address: str) -> bool:
    """True where the address cannot be reached from another machine.

    Raises: AddressError, where it is no address.
    """
    parts = urlsplit(address)
    if parts.scheme in ("ipc", "inproc"):
        return True
    try:
        host, port = parts.hostname, address.rsplit(":", 1)[1]
        if parts.scheme != "tcp" or not host or not (port == "*" or 0 <= int(port) < 65536):
            raise ValueError
    except (ValueError, IndexError):
        raise AddressError(f"{address!r} is no address; write it as tcp://HOST:PORT") from None
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind_router(
    context: "zmq.Context[zmq.Socket[bytes]]",
    address: str,
    keys: ServerKeys | None,
    max_message_bytes: int,
    *,
    queued: int = 1000,
) -> tuple["zmq.Socket[bytes]", ThreadAuthenticator | None]:
    """A server's socket, and the thread that checks keys where there are any. Of messages that a client does not read,
    `queued` are kept.

    Raises:
        AddressError: the address is no address, or open to other machines without keys.
        PortInUse: another process listens there.
    """
    if keys is None and not is_loopback(address):
        raise AddressError(
            f"{address} is open to other machines and there are no keys; run `serl keys make learner` and pass "
            "them, or listen on tcp://127.0.0.1:PORT"
        )
    socket = context.socket(zmq.ROUTER)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    _limit(socket, max_message_bytes, receive=16, send=queued)
    authenticator = None
    if keys is not None:
        allowed = keys.clients
        authenticator = ThreadAuthenticator(context)
        authenticator.start()
        authenticator.configure_curve_callback(domain="*", credentials_provider=_Allowed(allowed))
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_SECRETKEY, keys.own.secret)
        socket.set(zmq.CURVE_PUBLICKEY, keys.own.public)
    try:
        socket.bind(address)
    except zmq.ZMQError as e:
        socket.close(0)
        if authenticator is not None:
            authenticator.stop()
        if e.errno == zmq.EADDRINUSE:
            raise PortInUse(
                f"{address} is in use by another process; stop it (`ss -ltnp` names it) or choose another "
                "port with --learner.bind"
            ) from None
        raise AddressError(f"cannot listen on {address}: {e}; use an address of this machine") from None
    return socket, authenticator


def connect_dealer(
    context: "zmq.Context[zmq.Socket[bytes]]", address: str, keys: ClientKeys | None, max_message_bytes: int
) -> "zmq.Socket[bytes]":
    """The actor's socket; connects and reconnects in the background.

    Raises: AddressError, where the address is no address, or on another machine without keys.
    """
    if keys is None and not is_loopback(address):
        raise AddressError(
            f"{address} is on another machine and there are no keys; run `serl keys make actor`, exchange the "
            "public keys, and pass them"
        )
    socket = context.socket(zmq.DEALER)
    _limit(socket, max_message_bytes, receive=1000, send=1000)
    socket.set(zmq.RECONNECT_IVL, 50)
    socket.set(zmq.RECONNECT_IVL_MAX, 500)
    encrypt(socket, keys)
    socket.connect(address)
    return socket


def encrypt(socket: "zmq.Socket[bytes]", keys: ClientKeys | None) -> None:
    """Makes a client's socket speak CURVE, where there are keys; before it connects."""
    if keys is not None:
        socket.set(zmq.CURVE_SECRETKEY, keys.own.secret)
        socket.set(zmq.CURVE_PUBLICKEY, keys.own.public)
        socket.set(zmq.CURVE_SERVERKEY, keys.server)


class _Allowed:
    def __init__(self, clients: frozenset[bytes]) -> None:
        self._clients = clients

    def callback(self, domain: str, key: bytes) -> bool:
        return key in self._clients


def _limit(socket: "zmq.Socket[bytes]", max_message_bytes: int, *, receive: int, send: int) -> None:
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.RCVHWM, receive)
    socket.set(zmq.SNDHWM, send)
    socket.set(zmq.MAXMSGSIZE, CUT_OFF * max_message_bytes)
