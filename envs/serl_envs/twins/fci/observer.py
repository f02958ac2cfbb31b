"""External joint torques from what an arm knows about itself: a momentum observer."""

import numpy as np

from serl_envs.robot import Array
from serl_suite.control.compiled import compiled
from serl_suite.control.linear import cholesky, cholesky_solve

__all__ = ["MomentumObserver", "external_wrench"]

GAIN_HZ = 50.0
"""[1/s]: external torques show with a time constant of 20 ms."""
SINGULARITY_DAMPING = 1e-3


class MomentumObserver:
    """r = K (p - p_0 - integral of (tau + C' dq + r)), with p = M dq.

    It needs neither accelerations nor the true external torques: for a rigid arm r follows the torques that the
    surroundings exert as a first-order filter does. C' dq = dM/dt dq - C dq, with dM/dt from successive inertias.

    Args:
        mass: Inertia at the start, (7, 7).
        dq: Velocity at the start, (7,).
        dt_s: Tick.
    """

    def __init__(self, mass: Array, dq: Array, dt_s: float) -> None:
        self._dt_s = dt_s
        self._mass = mass.copy()
        self._expected = mass @ dq
        self.residual = np.zeros_like(dq)
        """Torques exerted by the surroundings on the joints [N m], (7,)."""

    def update(self, mass: Array, dq: Array, tau: Array, coriolis: Array) -> None:
        """Takes one tick.

        Args:
            mass: Inertia at its end, (7, 7).
            dq: Velocity at its end, (7,).
            tau: Motor torques during it, less what holds the arm against gravity, (7,).
            coriolis: C dq at its start, (7,).
        """
        _update(self._dt_s, self._expected, self.residual, self._mass, mass, dq, tau, coriolis)


@compiled
def _update(
    dt_s: float,
    expected: Array,
    residual: Array,
    mass_before: Array,
    mass: Array,
    dq: Array,
    tau: Array,
    coriolis: Array,
) -> None:
    """Writes the first three arrays."""
    n = dq.shape[0]
    for i in range(n):
        momentum, gained = 0.0, 0.0
        for j in range(n):
            momentum += mass[i, j] * dq[j]
            gained += (mass[i, j] - mass_before[i, j]) * dq[j]
            mass_before[i, j] = mass[i, j]
        expected[i] += dt_s * (tau[i] - coriolis[i] + residual[i]) + gained
        residual[i] = GAIN_HZ * (momentum - expected[i])


@compiled
def external_wrench(torque: Array, jacobian: Array) -> Array:
    """The least wrench whose joint torques come nearest: damped (J J')^-1 J tau. Shapes: (7,), (6, 7) -> (6,)."""
    gram, factor, wrench = np.empty((6, 6)), np.empty((6, 6)), np.empty(6)
    for i in range(6):
        for j in range(i + 1):
            gram[i, j] = (jacobian[i] * jacobian[j]).sum()
        gram[i, i] += SINGULARITY_DAMPING**2
        wrench[i] = (jacobian[i] * torque).sum()
    cholesky(gram, factor)
    cholesky_solve(factor, wrench)
    return wrench
