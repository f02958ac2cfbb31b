"""External joint torques from what an arm knows about itself: a momentum observer."""

import numpy as np

from serl_envs.robot import Array

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
        self._expected += self._dt_s * (tau - coriolis + self.residual) + (mass - self._mass) @ dq
        self.residual = GAIN_HZ * (mass @ dq - self._expected)
        self._mass[:] = mass


def external_wrench(torque: Array, jacobian: Array) -> Array:
    """The least wrench whose joint torques come nearest: damped (J J')^-1 J tau. Shapes: (7,), (6, 7) -> (6,)."""
    gram = jacobian @ jacobian.T
    gram.flat[::7] += SINGULARITY_DAMPING**2
    return np.asarray(np.linalg.solve(gram, jacobian @ torque), np.float64)
