"""What a client may ask for. Each check says why not."""

import math

import msgspec
import numpy as np

from serl_servers.franka.config import TICK_S
from serl_servers.franka.hand import OPEN_M
from serl_servers.franka.records import StateRecord
from serl_servers.front import Refusal
from serl_suite.control import ControlConfig, InvalidControlConfig, make_parameters
from serl_suite.control.parameters import JointLimits
from serl_suite.control.stability import LOOP_GAIN_MAX, loop_gain
from serl_suite.wire.robot_messages import Follow, PickUp, PutDown, Reset, SetGains, SetLoad

__all__ = ["check_gripper", "check_load", "check_pose", "checked_gains"]

MAX_LOAD_KG = 3.0
"""The arm carries 3 kg, the hand included."""
MAX_FORCE_N = 70.0
ROUNDING_M = 1e-4
"""A measured opening may be asked for."""


def check_pose(config: ControlConfig, request: Follow | Reset | PickUp | PutDown) -> None:
    """Raises: Refusal."""
    low, high = config.box_lower, config.box_upper
    for axis, value, least, most in zip("xyz", request.position, low, high, strict=True):
        if not least <= value <= most:
            raise Refusal(
                f"the setpoint's {axis} = {value:.4f} m is outside the workspace box {least}..{most} m"
            )
    norm = math.sqrt(sum(value * value for value in request.quaternion))
    if abs(norm - 1.0) > 1e-3:
        raise Refusal(f"the setpoint's quaternion has norm {norm:.4f}; normalise it (x, y, z, w)")
    if isinstance(request, Follow | Reset) and request.gripper_width is not None:
        check_gripper(request.gripper_width, None)
    if isinstance(request, PickUp):
        check_gripper(0.0, request.force_n)


def check_gripper(width: float, force_n: float | None) -> None:
    """Raises: Refusal."""
    if not -ROUNDING_M <= width <= OPEN_M + ROUNDING_M:
        raise Refusal(f"a gripper opening of {width} m; it opens 0..{OPEN_M} m")
    if force_n is not None and not 0.0 < force_n <= MAX_FORCE_N:
        raise Refusal(f"a grasping force of {force_n} N; the hand has 0..{MAX_FORCE_N:.0f} N")


def checked_gains(
    config: ControlConfig, limits: JointLimits, request: SetGains, state: StateRecord
) -> ControlConfig:
    """The configuration with the gains asked for.

    Raises:
        Refusal: They are none, or too high for the rate of the tick.
    """
    asked = msgspec.structs.replace(
        config,
        stiffness=request.stiffness, damping_ratio=request.damping_ratio,
        clip_lower=request.clip_lower, clip_upper=request.clip_upper,
    )  # fmt: skip
    try:
        make_parameters(asked, limits, TICK_S)
    except InvalidControlConfig as error:
        raise Refusal(str(error)) from error
    gain = loop_gain(
        np.array(asked.stiffness),
        asked.damping_ratio,
        state.jacobian,
        state.mass,
        asked.nullspace_stiffness,
        TICK_S,
    )
    if gain > LOOP_GAIN_MAX:
        raise Refusal(
            f"these gains give the control loop a gain of {gain:.2f} a tick, above the bound of {LOOP_GAIN_MAX} for "
            f"{1 / TICK_S:.0f} Hz; lower stiffness or damping ratio"
        )
    return asked


def check_load(request: SetLoad, state: StateRecord) -> None:
    """Raises: Refusal."""
    if not 0.0 <= request.mass <= MAX_LOAD_KG:
        raise Refusal(f"a load of {request.mass} kg; the arm carries 0..{MAX_LOAD_KG:.0f} kg")
    inertia = np.array(request.inertia).reshape(3, 3)
    if not np.allclose(inertia, inertia.T) or np.linalg.eigvalsh(inertia)[0] < 0.0:
        raise Refusal(
            "the load's inertia is not symmetric and positive; give it row by row about its centre of mass"
        )
    if np.abs(state.dq).max() > 0.02:
        raise Refusal("the arm moves; a load is set at rest")
