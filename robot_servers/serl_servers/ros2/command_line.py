"""`serl ros2`: a robot server on ROS 2 topics, and ROS 2 topics as a robot server."""

from collections.abc import Sequence
from pathlib import Path

import tyro

from serl_servers.commands import Commands, run_command
from serl_servers.ros2.config import ArmConfig, BridgeConfig, check_arm, check_bridge
from serl_suite.cli.stopping import stop_on_signals
from serl_suite.rig import BadRig, Rig, read_rig

__all__ = ["COMMANDS", "run"]

BRIDGE = """Put a robot server on ROS 2 topics.

  serl ros2 bridge                            a ROS 2 node of the server on this machine
  serl ros2 bridge --transport cyclonedds     the same topics, without ROS 2 installed

It publishes joint_states, pose, wrench and faults, and follows target_pose and target_joint for as long as they are
published. Ctrl-C gives control back, and the arm holds."""

ARM = """Serve an arm that a compliant ROS 2 controller drives, to the same clients as `serl robot franka`.

  serl ros2 arm --namespace left --base-frame base
  serl ros2 arm --rig lab1.yaml               a rig whose driver is ros2

It listens to joint_states and current_pose, and publishes target_pose, and target_joint for joint resets. Setpoints are
watched, capped and kept in the workspace box here; the torque is the controller's."""


class _Arm(ArmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rig: Path | None = None
    """The rig's file; what is given beside it counts more."""


def _bridge(arguments: Sequence[str]) -> int:
    config = tyro.cli(BridgeConfig, args=list(arguments), prog="serl ros2 bridge", description=BRIDGE)
    check_bridge(config)
    stop = stop_on_signals()
    from serl_servers.ros2.bridge import Bridge
    from serl_servers.ros2.transport import make_transport
    from serl_suite.wire.keys import client_keys
    from serl_suite.wire.robot_client import RobotClient

    keys = client_keys(config.keys, config.server_key) if config.keys is not None else None
    transport = make_transport(config.transport, "serl_bridge", config.domain)
    bridge = Bridge(RobotClient(config.address, keys, name="ROS 2 bridge"), transport, config)
    try:
        print(f"bridging {config.address} to ROS 2 by {config.transport}; Ctrl-C ends it", flush=True)  # noqa: T201
        bridge.run(stop.is_set)
    finally:
        bridge.close()
    return 0


def _arm(arguments: Sequence[str]) -> int:
    config = _arm_config(arguments)
    check_arm(config)
    stop = stop_on_signals()
    from serl_servers.ros2.service import ArmService
    from serl_servers.ros2.transport import make_transport
    from serl_suite.wire.keys import server_keys

    keys = server_keys(config.keys) if config.keys is not None else None
    service = ArmService(config, make_transport(config.transport, "serl_arm", config.domain), keys)
    try:
        print(f"serving the arm in ROS 2 on {config.bind}; Ctrl-C ends it", flush=True)  # noqa: T201
        service.run(stop.is_set)
    finally:
        service.close()
    return 0


def _arm_config(arguments: Sequence[str]) -> _Arm:
    """Raises: BadRig."""

    def parse(default: _Arm) -> _Arm:
        return tyro.cli(_Arm, args=list(arguments), default=default, prog="serl ros2 arm", description=ARM)

    path = parse(_Arm()).rig
    return parse(_Arm() if path is None else _on_rig(read_rig(path)))


def _on_rig(rig: Rig) -> _Arm:
    if rig.driver != "ros2":
        raise BadRig(f"driver: {rig.driver}: that arm is served by {rig.serve}")
    c = rig.control
    return _Arm(
        bind=rig.server, keys=None if rig.keys is None else rig.server_key, box_lower=c.box_lower,
        box_upper=c.box_upper, stiffness=c.stiffness, lead_m=min(c.clip[:3]), lead_rad=min(c.clip[3:]),
        filter_s=c.filter_s, max_linear_speed=c.max_linear_speed, max_angular_speed=c.max_angular_speed,
    )  # fmt: skip


COMMANDS: Commands = {
    "bridge": (_bridge, "put a robot server on ROS 2 topics"),
    "arm": (_arm, "serve an arm that a compliant ROS 2 controller drives"),
}
"""What follows `serl ros2`, and one line of help each."""


def run(arguments: Sequence[str]) -> int:
    """Runs one of the commands; 0 success, 1 failure, 2 wrong usage.

    Raises:
        SerlError: Says what is wrong and what to do.
    """
    return run_command("serl ros2", COMMANDS, arguments)
