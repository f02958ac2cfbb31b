"""The arm's own description of itself, as it answers GetRobotModel: a URDF written from the figures."""

from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np

from serl_hardware.franka.figures import Body, Floats, fr3

__all__ = ["velocity_limits", "write_urdf"]


def velocity_limits(q: Floats) -> tuple[Floats, Floats]:
    """The least and greatest joint velocity that may be commanded at a position, Shapes: (7,) -> (7,), (7,) [rad/s].

    Near a limit of position a joint may be no faster than it can still brake: sqrt(2 a (q_max - q)) - offset.
    """
    arm = fr3()
    up = np.sqrt(np.maximum(2.0 * arm.max_deceleration * (arm.q_max - q), 0.0)) - arm.velocity_offset
    down = np.sqrt(np.maximum(2.0 * arm.max_deceleration * (q - arm.q_min), 0.0)) - arm.velocity_offset
    return -np.clip(down, 0.0, arm.max_velocity), np.clip(up, 0.0, arm.max_velocity)


def write_urdf() -> str:
    """Returns kinematics, inertia and limits of the bare arm; `link8` is its flange, by which name the clients find it.

    The clients' own dynamics are computed from this text, so the figures are written with all their digits.
    """
    arm = fr3()
    robot = Element("robot", name="fr3")
    for i, link in enumerate(arm.links):
        _add_inertial(SubElement(robot, "link", name=f"link{i}"), link)
    SubElement(robot, "link", name="link8")
    for i in range(7):
        joint = _add_joint(robot, i + 1, "revolute", arm.joint_xyz[i], arm.joint_rpy[i])
        SubElement(joint, "axis", xyz="0 0 1")
        SubElement(joint, "dynamics", damping=_text(arm.damping[i]), friction=_text(arm.friction[i]))
        SubElement(
            joint, "limit", lower=_text(arm.q_min[i]), upper=_text(arm.q_max[i]),
            velocity=_text(arm.max_velocity[i]), effort=_text(arm.max_torque[i]),
        )  # fmt: skip
        SubElement(
            joint, "position_based_velocity_limits", velocity_offset=_text(arm.velocity_offset[i]),
            deceleration_limit=_text(arm.max_deceleration[i]),
        )  # fmt: skip
    _add_joint(robot, 8, "fixed", arm.flange_xyz, np.zeros(3))
    indent(robot)
    return '<?xml version="1.0" ?>\n' + tostring(robot, encoding="unicode") + "\n"


def _add_joint(robot: Element, number: int, kind: str, xyz: Floats, rpy: Floats) -> Element:
    joint = SubElement(robot, "joint", name=f"joint{number}", type=kind)
    SubElement(joint, "origin", xyz=_text(*xyz), rpy=_text(*rpy))
    SubElement(joint, "parent", link=f"link{number - 1}")
    SubElement(joint, "child", link=f"link{number}")
    return joint


def _add_inertial(link: Element, body: Body) -> None:
    inertial = SubElement(link, "inertial")
    SubElement(inertial, "origin", xyz=_text(*body.com), rpy="0 0 0")
    SubElement(inertial, "mass", value=_text(body.mass))
    names = ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
    SubElement(
        inertial, "inertia", {name: _text(value) for name, value in zip(names, body.inertia, strict=True)}
    )


def _text(*values: float) -> str:
    return " ".join(repr(float(value)) for value in values)
