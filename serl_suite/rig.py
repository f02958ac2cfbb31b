"""A rig: one arm and what belongs to it, as a YAML file describes it. Everything that is run on it is told the file."""

import difflib
import ipaddress
import math
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from serl_suite.errors import SerlError
from serl_suite.wire.endpoint import AddressError, is_loopback

__all__ = ["BadRig", "Camera", "ControlSettings", "Limits", "Rig", "Teleop", "read_rig"]

REACH_M = 1.3
"""No arm of ours reaches further from its base along an axis, its tool and the base's height included."""
STIFFEST = 5000.0
"""[N/m]: above that, an impedance law at 1 kHz shakes."""
STRONGEST_N = 100.0
"""An arm that may push harder breaks what it is to learn on."""
GRASP_MAX_N = 70.0
"""What a Franka Hand holds for long."""
MIN_SIDE = 16
"""[pixels]"""
TWIN_SIDE = 640
"""[pixels]: what a twin's offscreen buffer holds."""

Three = tuple[float, float, float]
Six = tuple[float, float, float, float, float, float]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e6)]


class BadRig(SerlError, ValueError):
    """A rig that cannot be used; says which file, where in it, and why."""


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the robot server's control law starts with. Base frame; linear axes first, then angular."""

    box_lower: Three = (0.25, -0.4, -0.02)
    """Lower corner of the workspace [m]: no setpoint is followed further, resets included."""
    box_upper: Three = (0.75, 0.4, 0.6)
    """Upper corner."""
    stiffness: Six = (500.0, 500.0, 500.0, 50.0, 50.0, 50.0)
    """[N/m, Nm/rad] until a task asks for its own."""
    damping_ratio: Positive = 0.7
    clip: Six = (0.05, 0.05, 0.05, 0.2, 0.2, 0.2)
    """Greatest pose error that the spring answers [m, rad], either way, until a task asks for its own."""
    filter_s: Annotated[float, msgspec.Meta(ge=0)] = 0.015
    """Time constant of the target's filter [s]."""
    max_linear_speed: Positive = 1.0
    """Fastest that the target moves [m/s]."""
    max_angular_speed: Positive = 2.5
    """Fastest that the target turns [rad/s]."""
    tank_max: Positive = 20.0
    """Energy that one episode may put into the arm [J]."""
    max_power: Positive = 100.0
    """Most power that goes into the arm [W]."""

    def __post_init__(self) -> None:
        for name, value in msgspec.structs.asdict(self).items():
            if not all(map(math.isfinite, value if isinstance(value, tuple) else (value,))):
                raise BadRig(f"{name} is not finite: {value}")
        for axis, low, high in zip("xyz", self.box_lower, self.box_upper, strict=True):
            if not low < high:
                raise BadRig(f"the workspace is empty: in {axis} it begins at {low} m and ends at {high} m")
            if max(abs(low), abs(high)) > REACH_M:
                raise BadRig(
                    f"the workspace goes to {axis} = {max(low, high, key=abs)} m; no arm reaches {REACH_M} m"
                )
        if min(self.stiffness) < 0 or min(self.clip) < 0:
            raise BadRig("stiffness and clip are 0 or more")


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a task may ask for here; one that needs more is refused."""

    stiffness_n_per_m: Annotated[float, msgspec.Meta(gt=0)] = 2000.0
    """Greatest translational stiffness."""
    force_n: Annotated[float, msgspec.Meta(gt=0)] = 40.0
    """Greatest push along an axis: stiffness times clip."""

    def __post_init__(self) -> None:
        if self.stiffness_n_per_m > STIFFEST:
            raise BadRig(f"{self.stiffness_n_per_m:g} N/m; above {STIFFEST:g} N/m a law at 1 kHz shakes")
        if self.force_n > STRONGEST_N:
            raise BadRig(f"a push of {self.force_n:g} N; the most that a rig may allow is {STRONGEST_N:g} N")


class Camera(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A camera that looks at the task, and the square picture that is taken from it."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,31}$")]
    """As in observations."""
    driver: Literal["realsense", "v4l2", "twin"]
    serial: str
    """Of a RealSense, as `serl camera list` shows it, or a recording of one, NAME.db3; of another camera its path, such
    as /dev/v4l/by-id/..., or a video file; of a twin the name of the camera in its scene."""
    width: Annotated[int, msgspec.Meta(ge=MIN_SIDE, le=4096)] = 640
    """What the camera is asked for [pixels]; it must have such a mode."""
    height: Annotated[int, msgspec.Meta(ge=MIN_SIDE, le=4096)] = 480
    rate_hz: Annotated[int, msgspec.Meta(ge=10, le=120)] = 30
    crop: tuple[int, int, int] | None = None
    """Left edge, upper edge and side of the square that is cut out [pixels]; None: the largest, in the middle."""
    size: Annotated[int, msgspec.Meta(ge=MIN_SIDE, le=1024)] = 128
    """Side of the picture that is made of it [pixels]: as large as the task observes it."""
    exposure_ms: Literal["auto", "lock"] | Positive = "auto"
    """lock: found by the camera after it was opened, and kept; a number: set, and kept."""
    white_balance_k: Literal["auto", "lock"] | Positive = "auto"
    """Likewise, a colour temperature."""
    calibration: str | None = None
    """File that `serl camera calibrate` wrote: with it, the lens's distortion is taken out."""

    def __post_init__(self) -> None:
        x, y, side = self.square
        if min(x, y) < 0 or side < 1 or x + side > self.width or y + side > self.height:
            raise BadRig(
                f"camera {self.name}: the square of {side} at ({x}, {y}) is not inside {self.width}x{self.height}"
            )
        if self.driver == "twin" and (self.width != self.height or self.width > TWIN_SIDE):
            raise BadRig(
                f"camera {self.name}: a twin draws squares of at most {TWIN_SIDE} pixels; set width and height alike"
            )
        if self.size > side:
            raise BadRig(
                f"camera {self.name}: a picture of {self.size} pixels can't be had from a square of {side}; lower size"
            )

    @property
    def square(self) -> tuple[int, int, int]:
        """Left edge, upper edge and side of what is cut out."""
        side = min(self.width, self.height)
        return self.crop or ((self.width - side) // 2, (self.height - side) // 2, side)


class Teleop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person leads the arm with."""

    driver: Literal["spacemouse", "keyboard"]
    device: str | None = None
    """Its path, such as /dev/hidraw0; None: found by its maker's number."""


class Rig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One arm, where its programs are reached, and what is allowed on it."""

    arm: str
    """Address of the arm; of a twin, for example 127.0.0.1."""
    driver: Literal["pylibfranka", "ros2"] = "pylibfranka"
    """What speaks to the arm: libfranka, in `serl robot franka`; a compliant ROS 2 controller, by `serl ros2 arm`."""
    server: str = "tcp://127.0.0.1:5755"
    """Where the robot server listens; states are published at the port after it."""
    keys: str | None = None
    """Name of a client's key pair (`serl keys make`); needed where server and client are on two machines."""
    server_key: str = "robot"
    """Name of the server's key pair."""
    core: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """The only core that the control process runs on; isolate it (isolcpus) for the best timing."""
    hand: bool = True
    """Whether the arm has a Franka Hand."""
    grasp_force_n: Annotated[float, msgspec.Meta(gt=0, le=GRASP_MAX_N)] = 30.0
    """With which the fingers close."""
    reflex_force_n: Annotated[float, msgspec.Meta(gt=0, le=STRONGEST_N)] = 40.0
    """Where the arm's own collision reflex stops it: force at the TCP, and joint torque [N m]."""
    control: ControlSettings = ControlSettings()
    """What the control law starts with."""
    limits: Limits = Limits()
    """What a task may ask for."""
    pace: Literal["realtime", "lockstep"] = "realtime"
    """lockstep: of a twin started with `--mode lockstep`, whose time stands still while the policy thinks."""
    scene: str | None = None
    """Simulation only: where a wire twin tells and takes the poses of its things, tcp://HOST:1339."""
    cameras: tuple[Camera, ...] = ()
    camera_server: str = "tcp://127.0.0.1:5757"
    """Where the camera server listens; its key pairs are the robot server's."""
    teleop: Teleop | None = None
    source: str = ""
    """The file that it was read from; filled in by who reads it."""

    def __post_init__(self) -> None:
        try:
            ipaddress.ip_address(self.arm)
        except ValueError:
            raise BadRig(
                f"arm: {self.arm!r} is no IP address; an arm's is shown in Desk under Network"
            ) from None
        try:
            local = is_loopback(self.server)
            cameras_local = is_loopback(self.camera_server)
            scene_is_local = self.scene is None or is_loopback(self.scene)
        except AddressError as error:
            raise BadRig(str(error)) from error
        if not local and self.keys is None:
            raise BadRig(
                f"server: {self.server} can be reached from other machines, which takes keys; make them with `serl "
                "keys make` and name them under keys"
            )
        if not cameras_local and self.keys is None:
            raise BadRig(
                f"camera_server: {self.camera_server} can be reached from other machines, which takes keys, as "
                "server does"
            )
        if not scene_is_local:
            raise BadRig(f"scene: {self.scene} is on another machine; a twin shows its scene on its own only")
        if self.pace == "lockstep" and self.driver == "ros2":
            raise BadRig("pace: a ROS 2 controller does not wait for a twin's time; take realtime")
        if self.pace == "lockstep" and self.scene is None:
            raise BadRig("pace: no arm of metal can wait, so lockstep needs a twin's scene; take realtime")
        if len({camera.name for camera in self.cameras}) < len(self.cameras):
            raise BadRig("cameras: two have the same name")
        if self.scene is None and any(camera.driver == "twin" for camera in self.cameras):
            raise BadRig("cameras: driver twin sees a wire twin's scene, and this rig has none; add scene")
        if self.pace == "lockstep" and self.cameras:
            raise BadRig(
                "cameras: they see real time pass, and pace is lockstep, where it does not; take realtime, or list "
                "none: pictures of a twin are then drawn by who asks"
            )
        force = max(
            k * clip for k, clip in zip(self.control.stiffness[:3], self.control.clip[:3], strict=True)
        )
        if force > self.limits.force_n:
            raise BadRig(
                f"control: stiffness times clip pushes with {force:g} N, and limits.force_n is {self.limits.force_n:g}"
            )
        if max(self.control.stiffness[:3]) > self.limits.stiffness_n_per_m:
            raise BadRig(
                f"control: a stiffness of {max(self.control.stiffness[:3]):g} N/m is above "
                f"limits.stiffness_n_per_m, {self.limits.stiffness_n_per_m:g}"
            )

    @property
    def serve(self) -> str:
        """The command that starts its robot server."""
        return f"serl {'ros2 arm' if self.driver == 'ros2' else 'robot franka'} --rig {self.source}"


def read_rig(path: Path) -> Rig:
    """Reads a rig's file.

    Raises:
        BadRig: It cannot be read; a name in it is none of a rig's; or a value cannot be.
    """
    try:
        rig = msgspec.yaml.decode(path.read_bytes(), type=Rig)
    except OSError as error:
        raise BadRig(f"the rig {path} cannot be read: {error.strerror}{_others(path)}") from error
    except msgspec.ValidationError as error:
        raise BadRig(f"{path}: {_explained(str(error))}") from error
    except (msgspec.DecodeError, ValueError, AttributeError) as error:  # dates, numbers that are none
        raise BadRig(f"{path} is no YAML: {error}") from error
    return msgspec.structs.replace(rig, source=str(path))


def _others(path: Path) -> str:
    near = sorted(map(str, path.parent.glob("*.yaml"))) or sorted(
        map(str, Path("hardware/rigs").glob("*.yaml"))
    )
    return f"; there is {', '.join(near)}" if near else "; hardware/rigs has examples"


def _explained(message: str) -> str:
    """Names the place as people write it, and for a name that there is not the nearest one that there is."""
    text, _, place = message.partition(" - at `$")
    place = place.rstrip("`").lstrip(".")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text)
    if unknown is None:
        return f"{place}: {text}" if place else text
    names = _fields(place)
    near = difflib.get_close_matches(unknown[1], names, n=1, cutoff=0.4) or names
    where = f"{place}.{unknown[1]}" if place else unknown[1]
    return f"there is no {where}; did you mean {' or '.join(near)}?"


def _fields(place: str) -> list[str]:
    """The names at a place such as `cameras[0]`."""
    kind: type[msgspec.Struct] = Rig
    for name in filter(None, re.sub(r"\[[^]]*\]", "", place).split(".")):
        kind = _struct_in(typing.get_type_hints(kind)[name])
    return [name for name in kind.__struct_fields__ if name != "source"]


def _struct_in(hint: object) -> type[msgspec.Struct]:
    if (
        isinstance(hint, type)
        and not isinstance(hint, types.GenericAlias)
        and issubclass(hint, msgspec.Struct)
    ):
        return hint
    return next(_struct_in(part) for part in typing.get_args(hint) if part not in (type(None), Ellipsis))
