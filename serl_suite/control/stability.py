"""What the tick's rate allows: stiffness and damping above it shake the arm instead of holding it.

For a mode of w [rad/s] and damping ratio zeta whose torque acts a tick late,

    v_{k+1} = v_k - dt (w^2 x_{k-1} + 2 zeta w v_{k-1}),  x_{k+1} = x_k + dt v_{k+1},

the characteristic polynomial is z^3 - 2 z^2 + (1 + s + d) z - d with s = (w dt)^2 and d = 2 zeta w dt. By Jury's
criterion it is stable where s < d (1 - d), that is where g = w dt (2 zeta + 1 / (2 zeta)) < 1. A delay takes from the
damping, and a low ratio has little to lose.
"""

import math

import numpy as np

from serl_suite.control.compiled import Array, compiled

__all__ = ["LOOP_GAIN_MAX", "STABLE_GAIN", "loop_gain", "mode_gain"]

STABLE_GAIN = 1.0
"""Above it the tick ends the motion."""
LOOP_GAIN_MAX = 0.5
"""Above it gains are not taken: half is left for further packets that get lost, and for poses with less inertia."""


@compiled
def mode_gain(rate_squared: float, ratio: float, dt_s: float) -> float:
    """g of a mode, from w^2 [1/s^2]; inf for a spring without damping."""
    turned = math.sqrt(max(rate_squared, 0.0)) * dt_s
    if turned == 0.0:
        return 0.0
    return turned * (2.0 * ratio + 0.5 / ratio) if ratio > 0.0 else math.inf


def loop_gain(
    stiffness: Array, damping_ratio: float, jacobian: Array, mass: Array, nullspace: float, dt_s: float
) -> float:
    """The greatest g: of the fastest mode, whose w^2 is the greatest eigenvalue of K^1/2 (J M^-1 J^T) K^1/2, or of the
    nullspace's spring on the lightest joint; inf where stiffness is negative or something is not finite.

    Shapes: (6,), scalar, (6, 7), (7, 7).
    """
    root = np.sqrt(np.maximum(stiffness, 0.0))
    mobility = np.linalg.inv(mass)
    modes = root[:, None] * (jacobian @ mobility @ jacobian.T) * root
    if (stiffness < 0.0).any() or not (np.isfinite(modes).all() and math.isfinite(damping_ratio)):
        return math.inf
    fastest = float(np.linalg.eigvalsh(modes)[-1])
    lightest = float(np.linalg.eigvalsh(mobility)[-1])
    # the nullspace's damping is 2 sqrt(k) whatever the inertia, so a light joint feels more of it
    return max(
        float(mode_gain(fastest, damping_ratio, dt_s)), float(mode_gain(nullspace, 1.0, dt_s)) * lightest
    )
