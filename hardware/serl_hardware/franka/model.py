"""The FR3 with hand as an MjSpec, built from the figures; scenes add a table and objects to it."""

from pathlib import Path

import mujoco
import numpy as np

from serl_hardware.franka.figures import Body, Floats, fr3
from serl_hardware.franka.shapes import ARM_SHAPES, FINGER_SHAPES, HAND_SHAPES, Shape

__all__ = [
    "ARM_JOINTS",
    "COLLIDE_FIXTURE",
    "COLLIDE_OBJECT",
    "FINGER_JOINTS",
    "GRIPPER_ACTUATOR",
    "GRIPPER_STIFFNESS",
    "TCP_SITE",
    "TIMESTEP_S",
    "add_franka",
    "save_mjcf",
]

ARM_JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("finger_left", "finger_right")
GRIPPER_ACTUATOR = "gripper"
TCP_SITE = "tcp"

TIMESTEP_S = 0.001

# Contact masks. Two geoms collide if one's contype meets the other's conaffinity, so the arm (contype only) never
# collides with itself: the tasks' workspace boxes keep it clear of itself, and each excluded pair saves time at 1 kHz.
# The arm's links meet the fixtures (table, walls); hand and fingers meet fixtures and objects.
COLLIDE_FIXTURE = 1
"""conaffinity bit of everything fixed."""
COLLIDE_OBJECT = 2
"""conaffinity bit of everything that can be grasped; such a geom's contype is COLLIDE_FIXTURE."""

_PAINTS = {  # rgba, specular, shininess
    "shell": ((0.93, 0.94, 0.95, 1.0), 0.45, 0.6),
    "joint": ((0.16, 0.17, 0.19, 1.0), 0.3, 0.4),
    "finger": ((0.30, 0.31, 0.33, 1.0), 0.3, 0.4),
    "pad": ((0.12, 0.12, 0.13, 1.0), 0.1, 0.2),
}
_GEOM_TYPES = {
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
}
# The hand's motor as a position servo on the opening width: stiff enough to stall at the commanded force within
# half a millimetre, damped about critically with the armature of the figures.
GRIPPER_STIFFNESS = 8000.0
"""Servo stiffness on the opening width [N/m]."""
_GRIPPER_DAMPING = 60.0
# Both fingers hang on one motor: a stiff spring on the difference of their positions stands for its gear.
_GEAR_STIFFNESS = 20000.0
_GEAR_DAMPING = 40.0


def quat_from_rpy(rpy: Floats) -> Floats:
    """MuJoCo's wxyz quaternion of fixed-axis roll, pitch, yaw [rad]."""
    half = 0.5 * np.asarray(rpy)
    (cr, cp, cy), (sr, sp, sy) = np.cos(half), np.sin(half)
    return np.array(
        [
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        ]
    )


def _set_inertia(body: mujoco.MjsBody, figures: Body) -> None:
    body.explicitinertial = True
    body.mass = figures.mass
    body.ipos = figures.com
    body.fullinertia = figures.inertia
    # The arm compensates its own and its hand's weight, never the payload's.
    body.gravcomp = 1.0


def _add_shape(body: mujoco.MjsBody, shape: Shape, conaffinity_of: int) -> mujoco.MjsGeom:
    geom = body.add_geom(type=_GEOM_TYPES[shape.kind], material=f"franka_{shape.paint}", mass=0.0)
    if shape.kind in ("box", "ellipsoid"):
        geom.pos, geom.size = shape.start, shape.half
    else:
        geom.fromto, geom.size = (*shape.start, *shape.end), (shape.radius, 0.0, 0.0)
    geom.contype = conaffinity_of if shape.collides else 0
    geom.conaffinity = 0
    geom.group = 2
    return geom


def _add_arm(spec: mujoco.MjSpec, base: mujoco.MjsBody) -> mujoco.MjsBody:
    figures = fr3()
    _set_inertia(base, figures.links[0])
    body = base
    for shape in ARM_SHAPES[0]:
        _add_shape(body, shape, 0)
    for i, name in enumerate(ARM_JOINTS):
        body = body.add_body(
            name=f"link{i + 1}", pos=figures.joint_xyz[i], quat=quat_from_rpy(figures.joint_rpy[i])
        )
        _set_inertia(body, figures.links[i + 1])
        body.add_joint(
            name=name,
            axis=(0, 0, 1),
            range=(figures.q_min[i], figures.q_max[i]),
            limited=True,
            armature=figures.armature,
            damping=(figures.damping[i], 0.0, 0.0),
            frictionloss=figures.friction[i],
        )
        for shape in ARM_SHAPES[i + 1]:
            _add_shape(body, shape, COLLIDE_FIXTURE)
        spec.add_actuator(
            name=name,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            target=name,
            forcelimited=True,
            forcerange=(-figures.max_torque[i], figures.max_torque[i]),
        ).set_to_motor()
    return body


def _add_hand(spec: mujoco.MjSpec, flange_link: mujoco.MjsBody) -> None:
    figures = fr3()
    hand = flange_link.add_body(name="hand", pos=figures.flange_xyz, quat=quat_from_rpy(figures.hand_rpy))
    _set_inertia(hand, figures.hand)
    for shape in HAND_SHAPES:
        _add_shape(hand, shape, COLLIDE_FIXTURE | COLLIDE_OBJECT)
    hand.add_site(name=TCP_SITE, pos=figures.tcp_xyz, size=(0.002, 0.002, 0.002), group=4)
    # In front of the hand, looking at what is a finger's breadth past the fingertips, which it has in view too.
    hand.add_camera(name="wrist", pos=(0.085, 0.0, 0.045), xyaxes=(0, 1, 0, 0.804, 0, 0.594), fovy=72)
    size = 0.5 * figures.finger_mass * np.array([1e-4, 1e-4, 1e-4, 0, 0, 0])
    for name, turn in zip(FINGER_JOINTS, (0.0, np.pi), strict=True):
        finger = hand.add_body(
            name=name, pos=(0, 0, figures.finger_origin_z), quat=quat_from_rpy(np.array([0, 0, turn]))
        )
        _set_inertia(finger, Body(figures.finger_mass, np.array([0, 0.0125, 0.027]), size))
        finger.add_joint(
            name=name,
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=(0, 1, 0),
            range=figures.finger_travel,
            limited=True,
            armature=figures.finger_armature,
        )
        for shape in FINGER_SHAPES:
            geom = _add_shape(finger, shape, COLLIDE_FIXTURE | COLLIDE_OBJECT)
            if shape.paint == "pad":
                _make_pad(geom, f"{name}_pad")
    _add_gripper(spec)


def _make_pad(geom: mujoco.MjsGeom, name: str) -> None:
    """Rubber: its friction and stiffness decide over those of what it touches (priority)."""
    geom.name, geom.condim, geom.priority = name, 4, 1
    geom.friction = (1.0, 0.02, 1e-4)
    geom.solref, geom.solimp = (0.005, 1.0), (0.95, 0.99, 0.0005, 0.5, 2.0)


def _add_gripper(spec: mujoco.MjSpec) -> None:
    figures = fr3()
    for name, signs in (("gripper_width", (1.0, 1.0)), ("gripper_gear", (1.0, -1.0))):
        tendon = spec.add_tendon(name=name)
        for joint, sign in zip(FINGER_JOINTS, signs, strict=True):
            tendon.wrap_joint(joint, sign)
        if name == "gripper_gear":
            tendon.stiffness, tendon.damping = (_GEAR_STIFFNESS, 0, 0), (_GEAR_DAMPING, 0, 0)
    # A force f on the width tendon is f on each finger.
    limit = figures.finger_max_force
    spec.add_actuator(
        name=GRIPPER_ACTUATOR,
        trntype=mujoco.mjtTrn.mjTRN_TENDON,
        target="gripper_width",
        ctrllimited=True,
        # Past closed by the stall deflection, so that thin things are held with full force too.
        ctrlrange=(-limit / GRIPPER_STIFFNESS, 2 * figures.finger_travel[1]),
        forcelimited=True,
        forcerange=(-limit, limit),
    ).set_to_position(kp=GRIPPER_STIFFNESS, kv=_GRIPPER_DAMPING)


def add_franka(spec: mujoco.MjSpec) -> None:
    """Adds arm and hand at the world's origin, z up, x forward, with actuators (7 torques, 1 opening width) and sites.

    Raises:
        ValueError: from MuJoCo on compilation, if the scene already has an element of one of these names.
    """
    spec.compiler.degree = False
    # The rate of the arm's own control; the gripper's servo and gear are unstable at MuJoCo's default of 500 Hz.
    spec.option.timestep = TIMESTEP_S
    for name, (rgba, specular, shininess) in _PAINTS.items():
        spec.add_material(name=f"franka_{name}", rgba=rgba, specular=specular, shininess=shininess)
    base = spec.worldbody.add_body(name="link0")
    _add_hand(spec, _add_arm(spec, base))


def save_mjcf(path: Path) -> None:
    """Writes the bare arm as MJCF, for MuJoCo's viewer or any other reader."""
    spec = mujoco.MjSpec()
    spec.modelname = "fr3"
    add_franka(spec)
    spec.compile()
    path.write_text(spec.to_xml())
