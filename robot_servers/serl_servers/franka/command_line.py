"""`serl robot`: the Franka's server, and what an operator asks of one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import tyro

from serl_servers.commands import Commands, run_command
from serl_servers.franka.config import DEFAULT_ADDRESS, ServerConfig
from serl_suite.cli.stopping import stop_on_signals
from serl_suite.control import ControlConfig
from serl_suite.rig import BadRig, Rig, read_rig

if TYPE_CHECKING:
    from serl_servers.franka.operator_client import OperatorClient

__all__ = ["COMMANDS", "run"]

SERVER = """Serve a Franka arm: the control loop at 1 kHz in a process of its own, and the service that clients ask.

  serl robot franka --rig hardware/rigs/fr3.yaml
  serl robot franka --ip 172.16.0.2
  serl robot franka --ip 127.0.0.1          a twin, started with `serl twin franka`

Ctrl-C brings the arm to rest and ends it. Anything that stops the arm is latched until `serl robot recover`."""


class _Server(ServerConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rig: Path | None = None
    """The rig's file; what is given beside it counts more."""


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to ask."""

    address: str = DEFAULT_ADDRESS
    """Of the robot server."""
    keys: str | None = None
    """Name of this machine's key pair, where the server is on another one."""
    server_key: str = "robot"
    """Name of the server's public key."""


class Status(Operator, frozen=True):
    """Show what the arm does."""


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


class Home(Operator, frozen=True):
    """Have the hand find out how far it opens; its fingers are to be empty."""


class Put(Operator, frozen=True):
    """Put down what the hand holds: from above to a position of the TCP, open, and up again."""

    x: float
    """[m], base frame; the tool stays turned as it is."""
    y: float
    z: float
    approach: float = 0.1
    """From how far above, and how far up again [m]."""


class Pick(Put, frozen=True):
    """Pick up what is at a position of the TCP: open, from above, close, lift, and check that it is held."""

    force: float | None = None
    """Of the grasp [N]; the server's by default."""


Options = TypeVar("Options", bound=Operator)


def _serve(arguments: Sequence[str]) -> int:
    config = _server_config(arguments)
    stop = stop_on_signals()
    from serl_servers.franka.realtime import SERVICE_PRIORITY, take_priority
    from serl_servers.franka.service import RobotService

    take_priority(SERVICE_PRIORITY)  # before there are sockets, whose threads get it as well
    service = RobotService(config)
    try:
        for line in service.realtime:
            print(line)  # noqa: T201
        print(f"serving the arm at {config.ip} on {config.bind}; Ctrl-C ends it", flush=True)  # noqa: T201
        service.run(stop.is_set)
    finally:
        service.close()
    return 0


def _server_config(arguments: Sequence[str]) -> _Server:
    """Raises: BadRig."""

    def parse(default: _Server) -> _Server:
        return tyro.cli(
            _Server, args=list(arguments), default=default, prog="serl robot franka", description=SERVER
        )

    path = parse(_Server()).rig
    return parse(_Server() if path is None else _on_rig(read_rig(path)))


def _on_rig(rig: Rig) -> _Server:
    if rig.driver != "pylibfranka":
        raise BadRig(f"driver: {rig.driver}: that arm is served by {rig.serve}")
    c = rig.control
    x, y, z, roll, pitch, yaw = c.clip
    return _Server(
        ip=rig.arm, driver=rig.driver, core=rig.core, bind=rig.server, hand=rig.hand,
        keys=None if rig.keys is None else rig.server_key, grasp_force_n=rig.grasp_force_n,
        reflex_force_n=rig.reflex_force_n,
        control=ControlConfig(
            box_lower=c.box_lower, box_upper=c.box_upper, stiffness=c.stiffness, damping_ratio=c.damping_ratio,
            clip_lower=(-x, -y, -z, -roll, -pitch, -yaw), clip_upper=c.clip, filter_s=c.filter_s,
            max_linear_speed=c.max_linear_speed, max_angular_speed=c.max_angular_speed, tank_max=c.tank_max,
            max_power=c.max_power,
        ),
    )  # fmt: skip


def _operator(
    kind: type[Options], ask: Callable[["OperatorClient", Options], str]
) -> Callable[[Sequence[str]], int]:
    """A command that asks a server for something, and prints what came of it."""

    def command(arguments: Sequence[str]) -> int:
        options = tyro.cli(kind, args=list(arguments), prog=f"serl robot {kind.__name__.lower()}")
        with _connect(options) as client:
            print(ask(client, options))  # noqa: T201
        return 0

    return command


def _status(client: "OperatorClient", _: Status) -> str:
    return "\n".join(client.status())


def _stop(client: "OperatorClient", options: Stop) -> str:
    client.stop(options.reason)
    return "the arm is stopped; go on with `serl robot recover --reason ...`"


def _recover(client: "OperatorClient", options: Recover) -> str:
    client.recover(options.reason)
    return "recovered; the arm holds"


def _reset(client: "OperatorClient", options: Reset) -> str:
    client.reset(options.q)
    return "the arm is there, and holds"


def _jog(client: "OperatorClient", options: Jog) -> str:
    return f"the TCP is at {client.jog((options.x, options.y, options.z), options.yaw, options.gripper)}"


def _home(client: "OperatorClient", _: Home) -> str:
    return f"the hand opens {client.home() * 1e3:.1f} mm"


def _pick(client: "OperatorClient", options: Pick) -> str:
    width = client.pick((options.x, options.y, options.z), options.approach, options.force)
    return f"the hand holds something {width * 1e3:.1f} mm wide"


def _put(client: "OperatorClient", options: Put) -> str:
    client.put((options.x, options.y, options.z), options.approach)
    return "it is put down"


def _connect(options: Operator) -> "OperatorClient":
    from serl_servers.franka.operator_client import OperatorClient
    from serl_suite.wire.keys import client_keys

    keys = client_keys(options.keys, options.server_key) if options.keys is not None else None
    return OperatorClient(options.address, keys)


COMMANDS: Commands = {
    "franka": (_serve, "serve a Franka arm, or its twin"),
    "status": (_operator(Status, _status), "show what the arm does"),
    "stop": (_operator(Stop, _stop), "bring the arm to rest"),
    "recover": (_operator(Recover, _recover), "clear a latched fault"),
    "reset": (_operator(Reset, _reset), "go to a joint position"),
    "jog": (_operator(Jog, _jog), "move the tool by a little"),
    "home": (_operator(Home, _home), "find out how far the hand opens"),
    "pick": (_operator(Pick, _pick), "pick something up"),
    "put": (_operator(Put, _put), "put down what the hand holds"),
}
"""What follows `serl robot`, and one line of help each."""


def run(arguments: Sequence[str]) -> int:
    """Runs one of the commands; 0 success, 1 failure, 2 wrong usage.

    Raises:
        SerlError: Says what is wrong and what to do.
    """
    return run_command("serl robot", COMMANDS, arguments)
