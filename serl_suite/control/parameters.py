"""What a user sets about the controller, and the arrays that the compiled tick reads."""

import math
from typing import NamedTuple

import msgspec
import numpy as np

from serl_suite.control.compiled import Array
from serl_suite.errors import SerlError

__all__ = [
    "ControlConfig",
    "InvalidControlConfig",
    "JointLimits",
    "Parameters",
    "free_space",
    "insertion",
    "make_parameters",
]

Three = tuple[float, float, float]
Six = tuple[float, float, float, float, float, float]
Seven = tuple[float, float, float, float, float, float, float]


class InvalidControlConfig(SerlError):
    """A controller setting or joint limit that cannot be used; the message names it and what is allowed."""


class ControlConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the Cartesian impedance controller and its safety stages.

    In the base frame; linear axes first, then angular.
    """

    stiffness: Six = (500.0, 500.0, 500.0, 50.0, 50.0, 50.0)
    """K [N/m, Nm/rad]."""
    damping_ratio: float = 1.0
    """zeta of every mode of the arm on its springs, whatever its pose: 1 does not overshoot, 0.7 is quicker."""
    clip_lower: Six = (-0.05, -0.05, -0.05, -0.2, -0.2, -0.2)
    """Least pose error (measured minus target) that the spring answers [m, rad]; it bounds the force to -K * this."""
    clip_upper: Six = (0.05, 0.05, 0.05, 0.2, 0.2, 0.2)
    """Greatest pose error that the spring answers [m, rad]."""
    nullspace_stiffness: float = 10.0
    """k_n [Nm/rad] towards the posture; 0 switches it off."""
    posture: Seven | None = None
    """Joint angles q_0 [rad] that the nullspace is drawn to; None: those at the last reset."""
    pinv_damping: float = 0.02
    """lambda of the nullspace's pseudo-inverse: small against the Jacobian's singular values in usual poses."""

    filter_s: float = 0.05
    """Time constant of the target filter [s]; 0 follows setpoints at once, up to the speed caps."""
    max_linear_speed: float = 1.0
    """Fastest that the target moves [m/s]."""
    max_angular_speed: float = 2.5
    """Fastest that the target turns [rad/s]."""
    setpoint_hold_s: float = 0.1
    """Older setpoints are stale: the target slows down and holds."""
    setpoint_fault_s: float = 0.5
    """Setpoints older than this end the motion with a latched fault."""
    hold_linear_deceleration: float = 5.0
    """How fast a target without fresh setpoints slows down [m/s^2]."""
    hold_angular_deceleration: float = 20.0
    """The same for its turning [rad/s^2]."""

    box_lower: Three = (0.1, -0.4, -0.05)
    """Lower corner of the workspace box, on the target [m]."""
    box_upper: Three = (1.0, 0.4, 1.0)
    """Upper corner of the workspace box [m]."""
    box_margin: float = 0.05
    """The measured TCP may leave the box by this [m]; further out and still moving outward is a fault."""
    joint_margin: float = 0.1
    """The safe range of each joint ends this far before its limit [rad]."""
    joint_wall_depth: float = 0.2
    """The last part of the safe range in which a joint is pushed back [rad]."""
    joint_wall_stiffness: float = 50.0
    """Spring of that push [Nm/rad]."""
    velocity_wall_depth: float = 0.5
    """Below each joint's maximum velocity, where braking sets in [rad/s]."""
    velocity_wall_damping: float = 20.0
    """Strength of that braking [Nm s/rad]."""
    torque_fraction: float = 0.8
    """Share of each joint's maximum torque that the law may use; gravity compensation needs the rest."""
    max_torque_step: float = 1.0
    """Greatest change of torque in one tick, against the torque that the robot echoes [Nm]."""
    stop_damping_s: float = 0.1
    """Damping of each joint while a fault holds: d = this * maximum torque [Nm s/rad]."""

    passivity: bool = True
    """Whether the energy tank scales the torque. The tank is accounted for either way."""
    tank_max: float = 20.0
    """T_max, the energy that one episode may put into the arm [J]; friction drains it for good."""
    tank_min: float = 0.1
    """T_min, which the filter keeps [J]."""
    max_power: float = 100.0
    """P_max of the power valve [W]."""
    held_ticks: int = 1
    """Ticks for which the robot may hold one torque because packets get lost: the tank keeps enough for that many.
    1 trusts the link; 10 % random loss asks for about 8."""


def free_space() -> ControlConfig:
    """Soft and quick, for moving and picking: 500 N/m and 50 Nm/rad, at most 25 N and 10 Nm."""
    return ControlConfig()


def insertion() -> ControlConfig:
    """Stiff with a tight force bound, for contact: 2000 N/m and 150 Nm/rad, at most 20 N and 7.5 Nm."""
    return ControlConfig(
        stiffness=(2000.0, 2000.0, 2000.0, 150.0, 150.0, 150.0),
        clip_lower=(-0.01, -0.01, -0.01, -0.05, -0.05, -0.05),
        clip_upper=(0.01, 0.01, 0.01, 0.05, 0.05, 0.05),
    )


class JointLimits(NamedTuple):
    """What the joints allow, as the robot's maker publishes it. Shapes: (7,)."""

    lower: Array
    """[rad]"""
    upper: Array
    """[rad]"""
    max_velocity: Array
    """[rad/s]"""
    max_torque: Array
    """[Nm]"""


class Parameters(NamedTuple):
    """What the compiled tick reads; made by `make_parameters`, read-only."""

    dt_s: float
    stiffness: Array
    damping_ratio: float
    clip_lower: Array
    clip_upper: Array
    nullspace_stiffness: float
    posture: Array
    posture_fixed: bool
    pinv_damping: float
    blend: float
    max_linear_speed: float
    max_angular_speed: float
    setpoint_hold_s: float
    setpoint_fault_s: float
    hold_linear_deceleration: float
    hold_angular_deceleration: float
    box_lower: Array
    box_upper: Array
    box_margin: float
    joint_lower: Array
    joint_upper: Array
    joint_wall_depth: float
    joint_wall_stiffness: float
    max_velocity: Array
    velocity_wall_depth: float
    velocity_wall_damping: float
    max_torque: Array
    max_torque_step: float
    stop_damping: Array
    passivity: bool
    tank_max: float
    tank_min: float
    max_power: float
    held_ticks: int


def make_parameters(config: ControlConfig, limits: JointLimits, dt_s: float) -> Parameters:
    """The arrays of a configuration for an arm with these joint limits and ticks of `dt_s` seconds.

    Raises:
        InvalidControlConfig: naming the setting that cannot be used.
    """
    _check_config(config, dt_s)
    _check_limits(limits, config)
    max_torque = np.array(limits.max_torque, dtype=np.float64)
    return Parameters(
        dt_s=float(dt_s),
        stiffness=_frozen(config.stiffness),
        damping_ratio=float(config.damping_ratio),
        clip_lower=_frozen(config.clip_lower),
        clip_upper=_frozen(config.clip_upper),
        nullspace_stiffness=float(config.nullspace_stiffness),
        posture=_frozen(config.posture if config.posture is not None else (0.0,) * 7),
        posture_fixed=config.posture is not None,
        pinv_damping=float(config.pinv_damping),
        blend=-math.expm1(-dt_s / config.filter_s) if config.filter_s > 0.0 else 1.0,
        max_linear_speed=float(config.max_linear_speed),
        max_angular_speed=float(config.max_angular_speed),
        setpoint_hold_s=float(config.setpoint_hold_s),
        setpoint_fault_s=float(config.setpoint_fault_s),
        hold_linear_deceleration=float(config.hold_linear_deceleration),
        hold_angular_deceleration=float(config.hold_angular_deceleration),
        box_lower=_frozen(config.box_lower),
        box_upper=_frozen(config.box_upper),
        box_margin=float(config.box_margin),
        joint_lower=_frozen(np.asarray(limits.lower) + config.joint_margin),
        joint_upper=_frozen(np.asarray(limits.upper) - config.joint_margin),
        joint_wall_depth=float(config.joint_wall_depth),
        joint_wall_stiffness=float(config.joint_wall_stiffness),
        max_velocity=_frozen(limits.max_velocity),
        velocity_wall_depth=float(config.velocity_wall_depth),
        velocity_wall_damping=float(config.velocity_wall_damping),
        max_torque=_frozen(config.torque_fraction * max_torque),
        max_torque_step=float(config.max_torque_step),
        stop_damping=_frozen(config.stop_damping_s * max_torque),
        passivity=bool(config.passivity),
        tank_max=float(config.tank_max),
        tank_min=float(config.tank_min),
        max_power=float(config.max_power),
        held_ticks=int(config.held_ticks),
    )


def _frozen(values: Array | tuple[float, ...]) -> Array:
    return np.array(values, dtype=np.float64)


_POSITIVE = (
    "damping_ratio", "max_linear_speed", "max_angular_speed", "setpoint_hold_s", "hold_linear_deceleration",
    "hold_angular_deceleration", "joint_wall_depth", "velocity_wall_depth", "torque_fraction",
    "max_torque_step", "tank_max", "max_power", "held_ticks",
)  # fmt: skip
_NOT_NEGATIVE = (
    "nullspace_stiffness", "pinv_damping", "filter_s", "box_margin", "joint_margin", "joint_wall_stiffness",
    "velocity_wall_damping", "stop_damping_s", "tank_min",
)  # fmt: skip


def _check_config(config: ControlConfig, dt_s: float) -> None:
    for name in _POSITIVE + _NOT_NEGATIVE:
        value = getattr(config, name)
        if not math.isfinite(value) or value < 0.0 or (value == 0.0 and name in _POSITIVE):
            allowed = "> 0" if name in _POSITIVE else ">= 0"
            raise InvalidControlConfig(f"control.{name} is {value}; set a finite number {allowed}")
    if not 0.0 < dt_s <= 0.01:
        raise InvalidControlConfig(f"a tick of {dt_s} s; the law is made for ticks of at most 0.01 s")
    for name in ("stiffness", "clip_lower", "clip_upper", "posture", "box_lower", "box_upper"):
        if not np.all(np.isfinite(getattr(config, name) or 0.0)):
            raise InvalidControlConfig(f"control.{name} holds NaN or inf; set finite numbers")
    if min(config.stiffness) < 0.0:
        raise InvalidControlConfig(f"control.stiffness {config.stiffness} is negative; set numbers >= 0")
    if max(config.clip_lower) > 0.0 or min(config.clip_upper) < 0.0:
        raise InvalidControlConfig("control.clip_lower must be <= 0 <= control.clip_upper on every axis")
    if any(low >= high for low, high in zip(config.box_lower, config.box_upper, strict=True)):
        raise InvalidControlConfig("control.box_lower must lie below control.box_upper on every axis")
    if config.setpoint_fault_s <= config.setpoint_hold_s:
        raise InvalidControlConfig("control.setpoint_fault_s must be longer than control.setpoint_hold_s")
    if config.tank_min >= config.tank_max:
        raise InvalidControlConfig("control.tank_min must be less than control.tank_max")
    if config.torque_fraction > 1.0:
        raise InvalidControlConfig(f"control.torque_fraction is {config.torque_fraction}; set at most 1")


def _check_limits(limits: JointLimits, config: ControlConfig) -> None:
    for name, values in zip(limits._fields, limits, strict=True):
        if np.shape(values) != (7,) or not np.all(np.isfinite(values)):
            raise InvalidControlConfig(f"joint limit {name} needs 7 finite numbers, not {np.asarray(values)}")
    safe = np.asarray(limits.upper) - np.asarray(limits.lower) - 2 * config.joint_margin
    if np.any(safe <= 2 * config.joint_wall_depth):
        raise InvalidControlConfig(
            f"joint {int(np.argmin(safe)) + 1} has a range too small for control.joint_margin and "
            "control.joint_wall_depth; lower them"
        )
    if np.any(np.asarray(limits.max_velocity) <= config.velocity_wall_depth):
        raise InvalidControlConfig("control.velocity_wall_depth must be less than any maximum velocity")
    if np.any(np.asarray(limits.max_torque) <= 0.0):
        raise InvalidControlConfig("joint limit max_torque must be positive")
