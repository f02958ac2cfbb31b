"""`serl ros2`: a robot server on ROS 2 topics, and ROS 2 topics as a robot server."""

from collections.abc import Sequence

import tyro

from serl_servers.commands import Commands, run_command
from serl_servers.ros2.config import ArmConfig, BridgeConfig, check_arm, check_bridge
from serl_suite.cli.stopping import stop_on_signals

__all__ = ["COMMANDS", "run"]

BRIDGE = """Put a robot server on ROS 2 topics.

  serl ros2 bridge                            a ROS 2 node of the server on this machine
  serl ros2 bridge --transport cyclonedds     the same topics, without ROS 2 installed

It publishes joint_states, pose, wrench and faults, and follows target_pose and target_joint for as long as they are
published. Ctrl-C gives control back, and the arm holds."""

ARM = """Serve an arm that a compliant ROS 2 controller drives, to the same clients as `serl robot franka`.

  serl ros2 arm --namespace left --base-frame base

It listens to joint_states and current_pose, and publishes target_pose, and target_joint for joint resets. Setpoints are
watched, capped and kept in the workspace box here; the torque is the controller's."""


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
    config = tyro.cli(ArmConfig, args=list(arguments), prog="serl ros2 arm", description=ARM)
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
