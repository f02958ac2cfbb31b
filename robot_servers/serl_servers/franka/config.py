"""What a robot server is told."""

import msgspec
from serl_hardware.franka import fr3

from serl_servers.franka.driver import Driver, DriverError
from serl_suite.control import ControlConfig, JointLimits

__all__ = ["DEFAULT_ADDRESS", "TICK_S", "ControlSettings", "ServerConfig", "joint_limits", "make_driver"]

TICK_S = 1e-3
DEFAULT_ADDRESS = "tcp://127.0.0.1:5755"


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the control process needs to know."""

    ip: str = "172.16.0.2"
    """Address of the arm; of a twin, for example 127.0.0.1."""
    driver: str = "pylibfranka"
    """Which program speaks to the arm."""
    core: int | None = None
    """The only core that the control process runs on; isolate it (isolcpus) for the best timing."""
    reflex_force_n: float = 40.0
    """Where the arm's own collision reflex stops it: force at the TCP, and joint torque [N m]."""
    control: ControlConfig = ControlConfig()
    """The law and its safety stages."""


class ServerConfig(ControlSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole server."""

    bind: str = DEFAULT_ADDRESS
    """Where clients connect; states are published at the port after it. Other than on loopback, keys are needed."""
    keys: str | None = None
    """Name of the server's key pair, made with `serl keys make`; every other public key in the folder is let in."""
    require_realtime: bool = True
    """Whether a kernel that is not real-time keeps the server from an arm; never from a twin on this machine."""
    hand: bool = True
    """Whether the arm has a Franka Hand."""
    grasp_force_n: float = 30.0
    """With which the gripper closes."""


def joint_limits() -> JointLimits:
    arm = fr3()
    return JointLimits(arm.q_min, arm.q_max, arm.max_velocity, arm.max_torque)


def make_driver(settings: ControlSettings) -> Driver:
    """Connects to the arm.

    Raises:
        DriverError: No such driver, or the arm cannot be reached.
    """
    if settings.driver != "pylibfranka":
        raise DriverError(f"no driver {settings.driver!r}; this server has pylibfranka")
    from serl_servers.franka.pylibfranka_driver import PylibfrankaDriver

    return PylibfrankaDriver(settings.ip, settings.reflex_force_n)
