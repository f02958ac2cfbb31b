"""The FR3's published figures as arrays, read from `fr3.yaml`: the one place that any number of the arm comes from."""

from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

__all__ = ["Body", "FrankaFigures", "fr3"]

Floats = npt.NDArray[np.float64]


class Body(NamedTuple):
    """Mass [kg], centre of mass [m] and inertia about it [kg m^2; ixx, iyy, izz, ixy, ixz, iyz] in the body's frame."""

    mass: float
    com: Floats
    inertia: Floats


class FrankaFigures(NamedTuple):
    """Kinematics, inertia and limits of arm and hand; arrays over the seven joints unless said otherwise."""

    links: tuple[Body, ...]
    """link0 .. link7."""
    joint_xyz: Floats
    """Joint origins in the parent link [m], (7, 3)."""
    joint_rpy: Floats
    """Joint frames' fixed-axis roll, pitch, yaw in the parent link [rad], (7, 3)."""
    q_min: Floats
    q_max: Floats
    max_velocity: Floats
    """[rad/s]"""
    velocity_offset: Floats
    """[rad/s], of the velocity limits that depend on position."""
    max_deceleration: Floats
    """[rad/s^2], likewise."""
    max_torque: Floats
    """[N m]"""
    friction: Floats
    """Coulomb friction [N m]."""
    damping: Floats
    """[N m s/rad]"""
    armature: float
    """Reflected rotor inertia of every joint [kg m^2]: an assumption, see the YAML."""
    flange_xyz: Floats
    hand: Body
    hand_rpy: Floats
    tcp_xyz: Floats
    """Tool centre point in the hand's frame [m]."""
    finger_mass: float
    finger_origin_z: float
    finger_travel: Floats
    """Each finger's range [m], (2,)."""
    finger_max_speed: float
    """[m/s]"""
    finger_max_force: float
    """Continuous grasping force [N]."""
    finger_armature: float
    q_ready: Floats


def _array(values: list[float]) -> Floats:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


@cache
def fr3() -> FrankaFigures:
    """Reads the figures once; the arrays are shared and therefore frozen."""
    data = yaml.safe_load(files(__package__).joinpath("fr3.yaml").read_text())
    joints, hand, finger = data["joints"], data["hand"], data["finger"]

    def column(key: str) -> Floats:
        return _array([joint[key] for joint in joints])

    def body(entry: dict[str, Any]) -> Body:
        return Body(float(entry["mass"]), _array(entry["com"]), _array(entry["inertia"]))

    ranges = column("range")
    return FrankaFigures(
        links=tuple(body(link) for link in data["links"]),
        joint_xyz=column("xyz"),
        joint_rpy=column("rpy"),
        q_min=ranges[:, 0],
        q_max=ranges[:, 1],
        max_velocity=column("max_velocity"),
        velocity_offset=column("velocity_offset"),
        max_deceleration=column("max_deceleration"),
        max_torque=column("max_torque"),
        friction=column("friction"),
        damping=column("damping"),
        armature=float(data["armature"]),
        flange_xyz=_array(data["flange_xyz"]),
        hand=body(hand),
        hand_rpy=_array(hand["mount_rpy"]),
        tcp_xyz=_array(hand["tcp_xyz"]),
        finger_mass=float(finger["mass"]),
        finger_origin_z=float(finger["origin_z"]),
        finger_travel=_array(finger["travel"]),
        finger_max_speed=float(finger["max_speed"]),
        finger_max_force=float(finger["continuous_force"]),
        finger_armature=float(finger["armature"]),
        q_ready=_array(data["poses"]["ready"]),
    )
