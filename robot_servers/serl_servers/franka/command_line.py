"""`serl robot`: the Franka's server, and what an operator asks of one."""

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
import tyro

from serl_servers.franka.config import DEFAULT_ADDRESS, ServerConfig
from serl_suite.cli.stopping import stop_on_signals

if TYPE_CHECKING:
    from serl_servers.franka.operator_client import OperatorClient

__all__ = ["COMMANDS", "run"]

SERVER = """Serve a Franka arm: the control loop at 1 kHz in a process of its own, and the service that clients ask.

  serl robot franka --ip 172.16.0.2
  serl robot franka --ip 127.0.0.1          a twin, started with `serl twin franka`

Ctrl-C brings the arm to rest and ends it. Anything that stops the arm is latched until `serl robot recover`."""


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to ask."""

    address: str = DEFAULT_ADDRESS
    """Of the robot server."""
    keys: str | None = None
    """Name of this machine's key pair, where the server is on another one."""
    server_key: str = "robot"
    """Name of the server's public key."""


class Stop(Operator, frozen=True):
    """Bring the arm to rest, and latch that; anybody may."""

    reason: str = "an operator asked"
    """For the log."""


class Recover(Operator, frozen=True):
    """Clear a latched fault, after its cause was found."""

    reason: str
    """Why that is safe: for the log."""


class Reset(Operator, frozen=True):
    """Retract, and go to a joint position."""

    q: tuple[float, float, float, float, float, float, float] | None = None
    """[rad]; the ready pose by default."""


class Jog(Operator, frozen=True):
    """Move the TCP by a little, in the base frame."""

    x: float = 0.0
    """[m]"""
    y: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    """About the base's z [rad]."""
    gripper: float | None = None
    """Opening [m]."""


def _serve(arguments: Sequence[str]) -> int:
    config = tyro.cli(ServerConfig, args=list(arguments), prog="serl robot franka", description=SERVER)
    stop = stop_on_signals()
    from serl_servers.franka.service import RobotService

    service = RobotService(config)
    try:
        for line in service.realtime:
            print(line)  # noqa: T201
        print(f"serving the arm at {config.ip} on {config.bind}; Ctrl-C ends it", flush=True)  # noqa: T201
        service.run(stop.is_set)
    finally:
        service.close()
    return 0


def _status(arguments: Sequence[str]) -> int:
    options = tyro.cli(
        Operator, args=list(arguments), prog="serl robot status", description="Show what the arm does."
    )
    with _connect(options) as client:
        for line in client.status():
            print(line)  # noqa: T201
    return 0


def _stop(arguments: Sequence[str]) -> int:
    options = tyro.cli(Stop, args=list(arguments), prog="serl robot stop")
    with _connect(options) as client:
        client.stop(options.reason)
    print("the arm is stopped; go on with `serl robot recover --reason ...`")  # noqa: T201
    return 0


def _recover(arguments: Sequence[str]) -> int:
    options = tyro.cli(Recover, args=list(arguments), prog="serl robot recover")
    with _connect(options) as client:
        client.recover(options.reason)
    print("recovered; the arm holds")  # noqa: T201
    return 0


def _reset(arguments: Sequence[str]) -> int:
    options = tyro.cli(Reset, args=list(arguments), prog="serl robot reset")
    with _connect(options) as client:
        client.reset(options.q)
    print("the arm is there, and holds")  # noqa: T201
    return 0


def _jog(arguments: Sequence[str]) -> int:
    options = tyro.cli(Jog, args=list(arguments), prog="serl robot jog")
    with _connect(options) as client:
        moved = client.jog((options.x, options.y, options.z), options.yaw, options.gripper)
    print(f"the TCP is at {moved}")  # noqa: T201
    return 0


def _connect(options: Operator) -> "OperatorClient":
    from serl_servers.franka.operator_client import OperatorClient
    from serl_suite.wire.keys import client_keys

    keys = client_keys(options.keys, options.server_key) if options.keys is not None else None
    return OperatorClient(options.address, keys)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "franka": (_serve, "serve a Franka arm, or its twin"),
    "status": (_status, "show what the arm does"),
    "stop": (_stop, "bring the arm to rest"),
    "recover": (_recover, "clear a latched fault"),
    "reset": (_reset, "go to a joint position"),
    "jog": (_jog, "move the tool by a little"),
}
"""What follows `serl robot`, and one line of help each."""


def run(arguments: Sequence[str]) -> int:
    """Runs one of the commands; 0 success, 1 failure, 2 wrong usage.

    Raises:
        SerlError: Says what is wrong and what to do.
    """
    word = arguments[0] if arguments else "--help"
    if word in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        for name, (_, text) in COMMANDS.items():
            print(f"  serl robot {name.ljust(width)}  {text}")  # noqa: T201
        return 0 if arguments else 2
    if word not in COMMANDS:
        near = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.4) or list(COMMANDS)
        print(f"serl robot: no command {word!r}; did you mean {' or '.join(near)}?")  # noqa: T201
        return 2
    return COMMANDS[word][0](arguments[1:])
