"""Gains that change at run time: what the tick's rate allows."""

import numpy as np

from serl_servers.franka.driver import Array

__all__ = ["LOOP_GAIN_MAX", "loop_gain"]

LOOP_GAIN_MAX = 0.5
"""A velocity loop with a delay of one tick is stable up to a gain of 1 a tick, so this leaves half: for further
packets that get lost, and for poses with less inertia."""


def loop_gain(
    stiffness: Array, damping_ratio: float, jacobian: Array, mass: Array, nullspace: float, dt_s: float
) -> float:
    """The share of its velocity that a tick takes from the fastest mode: 2 zeta w dt + (w dt)^2, w^2 the greatest
    eigenvalue of K^1/2 (J M^-1 J^T) K^1/2, or of the nullspace's spring on the lightest joint.

    Shapes: (6,), scalar, (6, 7), (7, 7).
    """
    root = np.sqrt(stiffness)
    mobility = np.linalg.inv(mass)
    modes = root[:, None] * (jacobian @ mobility @ jacobian.T) * root
    fastest = float(np.linalg.eigvalsh(modes)[-1])
    lightest = float(np.linalg.eigvalsh(mobility)[-1])
    task = np.sqrt(max(fastest, 0.0)) * dt_s
    joint = np.sqrt(nullspace) * dt_s
    # the nullspace's damping is 2 sqrt(k) whatever the inertia, so a light joint feels more of it
    return float(max(2.0 * damping_ratio * task + task * task, (2.0 * joint + joint * joint) * lightest))
