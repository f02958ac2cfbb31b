"""Command shaping: how the target that the law tracks follows the setpoint that was asked for.

The target moves a fixed fraction of the remaining way each tick (an exponential average with time constant
tau: 1 - exp(-dt / tau)), never faster than a cap, along the straight line in position and the shortest turn
in orientation. A time constant of zero is the pass-through, an infinite cap the plain average.
"""

import math

import numpy as np

from serl_suite.control.compiled import Array, compiled
from serl_suite.control.rotations import (
    quaternion_from_rotation_vector,
    quaternion_multiply,
    quaternion_normalized,
    rotation_difference,
)

__all__ = ["follow_position", "follow_quaternion", "ramped_down"]


@compiled
def _shortened(way: Array, blend: float, max_step: float) -> float:
    """The fraction of `way` (3,) to go in this tick."""
    step = blend * math.sqrt(way[0] ** 2 + way[1] ** 2 + way[2] ** 2)
    return blend * (max_step / step) if step > max_step else blend


@compiled
def follow_position(target: Array, wanted: Array, blend: float, max_step_m: float) -> float:
    """Moves the target (3,) in place towards `wanted` (3,); returns the distance moved [m]."""
    way = wanted - target
    fraction = _shortened(way, blend, max_step_m)
    for i in range(3):
        # not target + 1.0 * (wanted - target): the pass-through is exact to the bit
        target[i] = wanted[i] if fraction == 1.0 else target[i] + fraction * way[i]
    return fraction * float(np.sqrt((way * way).sum()))


@compiled
def follow_quaternion(target: Array, wanted: Array, blend: float, max_step_rad: float) -> float:
    """Turns the target (4,) in place towards `wanted` (4,); returns the angle turned [rad]."""
    way = rotation_difference(wanted, target)
    fraction = _shortened(way, blend, max_step_rad)
    turned = quaternion_multiply(quaternion_from_rotation_vector(fraction * way), target)
    target[:] = wanted if fraction == 1.0 else quaternion_normalized(turned)
    return fraction * float(np.sqrt((way * way).sum()))


@compiled
def ramped_down(speed: float, deceleration: float, dt_s: float) -> float:
    """The speed after one tick of slowing down, not below zero.

    It caps a target whose setpoints have stopped coming: the target keeps to its way to the last setpoint
    while it slows, and so never passes it.
    """
    return max(speed - deceleration * dt_s, 0.0)
