"""What the ROS 2 side is told."""

import math

import msgspec

from serl_servers.ros2.transport import TransportName
from serl_suite.errors import SerlError

__all__ = ["ArmConfig", "BridgeConfig", "GraphConfig", "InvalidSetting", "check_arm", "check_bridge"]


class InvalidSetting(SerlError):
    """A setting that cannot be used; the message names it and what is allowed."""


class GraphConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where in the ROS 2 graph."""

    transport: TransportName = "rclpy"
    """rclpy, from an installation of ROS 2; or cyclonedds, without one."""
    domain: int | None = None
    """ROS 2 domain; $ROS_DOMAIN_ID by default, or 0."""
    namespace: str = ""
    """Before the names of topics: `left` makes /left/joint_states."""


class BridgeConfig(GraphConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bridge."""

    address: str = "tcp://127.0.0.1:5755"
    """Of the robot server."""
    keys: str | None = None
    """Name of this machine's key pair, where the server is on another one."""
    server_key: str = "robot"
    """Name of the server's public key."""
    arm_id: str = "fr3"
    """Of the robot description: joints are called ARM_joint1..., the base frame ARM_link0, the TCP ARM_hand_tcp."""
    rate_hz: float = 100.0
    """At which states are published; the server gives up to 250."""
    max_age_s: float = 0.1
    """Targets whose stamp is older, or as much ahead, are not followed."""


class ArmConfig(GraphConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A robot server for an arm that a compliant ROS 2 controller drives."""

    bind: str = "tcp://127.0.0.1:5755"
    """Where clients connect; states are published at the port after it. Other than on loopback, keys are needed."""
    keys: str | None = None
    """Name of the server's key pair, made with `serl keys make`; every other public key in the folder is let in."""

    joint_names: tuple[str, ...] = tuple(f"fr3_joint{i}" for i in range(1, 8))
    """In the order of the joint positions that clients see and send."""
    base_frame: str = "base"
    """Of the poses that the controller publishes and takes."""
    joint_states: str = "joint_states"
    """Topic (JointState) of the measured joints."""
    current_pose: str = "current_pose"
    """Topic (PoseStamped) of the measured TCP."""
    wrench: str | None = None
    """Topic (WrenchStamped) of the external wrench, along the TCP's axes; None: clients see zeros."""
    target_pose: str = "target_pose"
    """Topic (PoseStamped) that the controller follows."""
    target_joint: str = "target_joint"
    """Topic (JointState) that it follows to a joint position."""
    rate_hz: float = 100.0
    """At which targets are published."""

    box_lower: tuple[float, float, float] = (0.1, -0.4, -0.05)
    """Lower corner of the workspace box [m]."""
    box_upper: tuple[float, float, float] = (1.0, 0.4, 1.0)
    """Upper corner of the workspace box [m]."""
    box_margin: float = 0.05
    """The measured TCP may leave the box by this [m]; further out and still moving outward is a fault."""
    max_linear_speed: float = 0.5
    """Fastest that the target moves [m/s]."""
    max_angular_speed: float = 1.5
    """Fastest that the target turns [rad/s]."""
    max_joint_speed: float = 0.5
    """Fastest that a joint's target moves [rad/s]."""
    lead_m: float = 0.05
    """The target stays within this of the measured TCP: times the controller's stiffness, it bounds the force."""
    lead_rad: float = 0.2
    """The same for its orientation, and for each joint."""
    stiffness: tuple[float, float, float, float, float, float] | None = None
    """What the controller's is set to [N/m, Nm/rad]. A client that asks for gains gets these or is refused; None: is
    refused."""
    filter_s: float = 0.05
    """Time constant of the target filter [s]."""
    setpoint_hold_s: float = 0.1
    """Older setpoints are stale: the target slows down and holds."""
    setpoint_fault_s: float = 0.5
    """Setpoints older than this, and an arm that is silent for longer, end the motion with a latched fault."""


def check_bridge(config: BridgeConfig) -> None:
    """Raises: InvalidSetting."""
    _check_positive(config, "rate_hz", "max_age_s")


def check_arm(config: ArmConfig) -> None:
    """Raises: InvalidSetting."""
    _check_positive(
        config, "rate_hz", "max_linear_speed", "max_angular_speed", "max_joint_speed", "lead_m", "lead_rad",
        "setpoint_hold_s", "setpoint_fault_s",
    )  # fmt: skip
    for name in ("filter_s", "box_margin"):
        if not 0.0 <= getattr(config, name) < math.inf:
            raise InvalidSetting(f"{_option(name)} is {getattr(config, name)}; set a finite number >= 0")
    if any(not low < high for low, high in zip(config.box_lower, config.box_upper, strict=True)):
        raise InvalidSetting("--box-lower must lie below --box-upper on every axis")
    if config.setpoint_fault_s <= config.setpoint_hold_s:
        raise InvalidSetting("--setpoint-fault-s must be longer than --setpoint-hold-s")
    if not config.joint_names or len(set(config.joint_names)) != len(config.joint_names):
        raise InvalidSetting("--joint-names must name each joint once")


def _check_positive(config: msgspec.Struct, *names: str) -> None:
    for name in names:
        if not 0.0 < getattr(config, name) < math.inf:
            raise InvalidSetting(f"{_option(name)} is {getattr(config, name)}; set a finite number > 0")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
