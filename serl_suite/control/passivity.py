"""Energy tank, torque filter and power valve: the controller puts no more into the arm than the tank holds.

    W_k = tau_k^T (q_{k+1} - q_k)        exact port work of a held torque, tau_k echoed by the robot, without
    gravity T_{k+1} = min(T_max, T_k - W_k) tau = gamma tau_in                   gamma in [0, 1], 1 (and the
    torque untouched to the bit) while the tank is ample

Torque leaves through the rate saturation, which cannot drop it to zero at once. So gamma is chosen for the
torque that the saturation will let through, and the tank keeps in reserve what that torque could still
extract while it ramps down: the tank then never falls below T_min, as long as accelerations stay within what
the mass matrix and the last tick's measured acceleration allow (an impact may exceed it for a tick).
"""

import math

import numpy as np

from serl_suite.control.compiled import Array, compiled
from serl_suite.control.limits import saturate_torque_rate

__all__ = ["drain_tank", "filter_gain", "port_work", "worst_case_work"]


@compiled
def port_work(tau_echoed: Array, q: Array, last_q: Array) -> float:
    """W = tau^T (q - last_q) [J], of the torque held since `last_q`; positive: energy went into the arm."""
    work = 0.0
    for i in range(q.shape[0]):
        work += tau_echoed[i] * (q[i] - last_q[i])
    return work


@compiled
def drain_tank(tank_j: float, work_j: float, tank_max_j: float) -> float:
    """The tank after the port did `work_j`: min(T_max, T - W) [J]."""
    return min(tank_max_j, tank_j - work_j)


@compiled
def worst_case_work(
    tau: Array, dq: Array, mobility: Array, free_acceleration: Array, max_step: float, dt_s: float
) -> float:
    """The most that `tau` can extract: in the next tick, and then while it ramps to zero.

    Next tick: max(tau^T dq dt, 0) + 0.5 dt^2 |tau|^T a_max, with a_max = |M^-1| |tau| + |free acceleration|.
    Ramp, `max_step` a tick, per
    joint: the torque left after each step times the fastest speed that a_max allows by its end.
    Shapes: (n,), (n,), (n, n) |M^-1|, (n,) [rad/s^2] -> [J].
    """
    n = tau.shape[0]
    power = 0.0
    bound = 0.0
    for i in range(n):
        torque = abs(tau[i])
        acceleration = free_acceleration[i]
        for j in range(n):
            acceleration += mobility[i, j] * abs(tau[j])
        power += tau[i] * dq[i]
        bound += 0.5 * dt_s * dt_s * torque * acceleration
        ticks = math.floor(torque / max_step)
        outward = dq[i] if tau[i] >= 0.0 else -dq[i]
        fastest = outward + acceleration * (ticks + 1.0) * dt_s
        if ticks > 0 and fastest > 0.0:
            bound += fastest * dt_s * (ticks * torque - 0.5 * max_step * ticks * (ticks + 1.0))
    return bound + max(power * dt_s, 0.0)


@compiled
def filter_gain(
    tau: Array,
    echoed: Array,
    dq: Array,
    mobility: Array,
    free_acceleration: Array,
    budget_j: float,
    max_power_w: float,
    max_step: float,
    dt_s: float,
) -> float:
    """The largest gamma in [0, 1] whose torque, after rate saturation, the budget T - T_min can pay for.

    Below 1 it is found by bisection to 2^-16 and rounded down. The power valve bounds it by P_max / (tau^T
    dq). Where even gamma = 0 is too dear (an impact), 0: ramp down as fast as the robot allows.
    """
    power = 0.0
    for i in range(tau.shape[0]):
        power += tau[i] * dq[i]
    most = max_power_w / power if power > max_power_w else 1.0
    sent = np.empty(tau.shape[0])
    saturate_torque_rate(most * tau, echoed, max_step, sent)
    if worst_case_work(sent, dq, mobility, free_acceleration, max_step, dt_s) <= budget_j:
        return most
    least = 0.0
    for _ in range(16):
        middle = 0.5 * (least + most)
        saturate_torque_rate(middle * tau, echoed, max_step, sent)
        if worst_case_work(sent, dq, mobility, free_acceleration, max_step, dt_s) <= budget_j:
            least = middle
        else:
            most = middle
    return least
