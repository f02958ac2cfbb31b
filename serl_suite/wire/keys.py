"""CURVE keys: who may talk to whom across machines.

A folder holds, per name, `<name>.public` and, on its own machine only, `<name>.secret`. The learner's machine needs
`learner.secret` and one `.public` of each actor; an actor's machine its own `.secret` and `learner.public`.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.utils import z85

from serl_suite.errors import SerlError

__all__ = [
    "ClientKeys", "KeyInfo", "KeyPair", "KeysError", "ServerKeys", "client_keys", "default_folder", "list_keys",
    "make_keys", "server_keys",
]  # fmt: skip

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
KEY_LENGTH = 40
"""A CURVE key in Z85 (ZeroMQ RFC 32)."""


class KeysError(SerlError):
    """A key is missing, damaged, or readable by others."""


class KeyPair(NamedTuple):
    """One identity, in Z85."""

    public: bytes
    secret: bytes


class ServerKeys(NamedTuple):
    """What a learner needs."""

    own: KeyPair
    clients: frozenset[bytes]
    """Public keys that are let in."""


class ClientKeys(NamedTuple):
    """What an actor needs."""

    own: KeyPair
    server: bytes
    """The learner's public key."""


class KeyInfo(NamedTuple):
    """One line of `serl keys list`."""

    name: str
    public: str
    has_secret: bool
    """True on the machine that the key belongs to."""


def default_folder() -> Path:
    """`$XDG_CONFIG_HOME/serl/keys`, usually ~/.config/serl/keys."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "serl" / "keys"


def make_keys(name: str, folder: Path | None = None) -> KeyInfo:
    """Makes the pair `name`; the secret is readable by its owner only.

    Raises: KeysError, where the name is malformed or taken.
    """
    folder = folder or default_folder()
    if not NAME.fullmatch(name):
        raise KeysError(f"{name!r} is no key name; use letters, digits, - and _")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    public, secret = zmq.curve_keypair()
    for suffix, key, mode in (("secret", secret, 0o600), ("public", public, 0o644)):
        path = folder / f"{name}.{suffix}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            raise KeysError(f"{path} exists; choose another name, or remove it if its peers may go") from None
        with os.fdopen(fd, "wb") as file:
            file.write(key + b"\n")
    return KeyInfo(name, public.decode(), True)


def list_keys(folder: Path | None = None) -> list[KeyInfo]:
    """Every public key in the folder, sorted by name."""
    folder = folder or default_folder()
    return [
        KeyInfo(path.stem, _read(path).decode(), path.with_suffix(".secret").exists())
        for path in sorted(folder.glob("*.public"))
    ]


def server_keys(name: str = "learner", folder: Path | None = None) -> ServerKeys:
    """The learner's pair; every other public key in the folder is let in.

    Raises: KeysError, naming the command that makes what is missing.
    """
    folder = folder or default_folder()
    clients = frozenset(info.public.encode() for info in list_keys(folder) if info.name != name)
    if not clients:
        raise KeysError(
            f"no actor's public key in {folder}: run `serl keys make actor` on the actor's machine and copy "
            "actor.public here"
        )
    return ServerKeys(_pair(name, folder), clients)


def client_keys(name: str = "actor", server: str = "learner", folder: Path | None = None) -> ClientKeys:
    """The actor's pair and the learner's public key.

    Raises: KeysError, naming the command that makes what is missing.
    """
    folder = folder or default_folder()
    path = folder / f"{server}.public"
    if not path.exists():
        raise KeysError(f"no {path}: run `serl keys make {server}` on the learner's machine and copy it here")
    return ClientKeys(_pair(name, folder), _read(path))


def _pair(name: str, folder: Path) -> KeyPair:
    secret, public = folder / f"{name}.secret", folder / f"{name}.public"
    if not secret.exists() or not public.exists():
        raise KeysError(f"no key pair {name!r} in {folder}; make it with `serl keys make {name}`")
    if secret.stat().st_mode & 0o077:
        raise KeysError(f"{secret} is open to others; close it with `chmod 600 {secret}`")
    pair = KeyPair(_read(public), _read(secret))
    if zmq.curve_public(pair.secret) != pair.public:
        raise KeysError(f"{secret} and {public} are no pair; make a new one with `serl keys make`")
    return pair


def _read(path: Path) -> bytes:
    key = path.read_bytes().strip()
    try:
        valid = len(key) == KEY_LENGTH and len(z85.decode(key)) == 32
    except (KeyError, ValueError):
        valid = False
    if not valid:
        raise KeysError(f"{path} holds no CURVE key; copy it again or make a new one with `serl keys make`")
    return key
