"""Energy tank, torque filter and power valve: the controller puts no more into the arm than the tank holds.

    W_k     = tau_k^T (q_{k+1} - q_k)    exact port work of a held torque, tau_k echoed by the robot, without gravity
    T_{k+1} = min(T_max, T_k - W_k)
    tau     = gamma tau_in               gamma in [0, 1], 1 (and the torque untouched to the bit) while T is ample

The spring's energy V is part of what the tank holds: it was put aside when target or stiffness moved, and leaves
through the port as work. So a move is billed to T - T_min - V by what it adds to V at the measured pose, and shortened
to the share beta that this can pay for. The law feeds no Coriolis torque forward, so there is none to bill.

Torque leaves through the rate saturation, which cannot drop it to zero at once. So gamma is chosen for the
torque that the saturation will let through, and the tank keeps in reserve what that torque could still
extract while it ramps down: the tank then never falls below T_min, as long as accelerations stay within what
the mass matrix and the last tick's measured acceleration allow (an impact may exceed it for a tick).
"""

import math

import numpy as np

from serl_suite.control.compiled import Array, compiled
from serl_suite.control.impedance import pose_error, spring_energy
from serl_suite.control.limits import saturate_torque_rate
from serl_suite.control.rotations import (
    quaternion_from_rotation_vector,
    quaternion_multiply,
    quaternion_normalized,
    rotation_difference,
)

__all__ = ["bill_move", "drain_tank", "filter_gain", "port_work", "worst_case_work"]

BISECTIONS = 10
"""Both gains are found to 0.1 %, rounded down."""


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
    tau: Array, dq: Array, mobility: Array, free_acceleration: Array, max_step: float, hold_s: float
) -> float:
    """The most that `tau` can extract: while the robot holds it, and then while it ramps to zero.

    Held: max(tau^T dq h, 0) + 0.5 h^2 |tau|^T a_max, with a_max = |M^-1| |tau| + |free acceleration| and h the time
    for which the robot holds one torque: a tick, or several where packets may get lost. Ramp, `max_step` each h, per
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
        bound += 0.5 * hold_s * hold_s * torque * acceleration
        ticks = math.floor(torque / max_step)
        outward = dq[i] if tau[i] >= 0.0 else -dq[i]
        fastest = outward + acceleration * (ticks + 1.0) * hold_s
        if ticks > 0 and fastest > 0.0:
            bound += fastest * hold_s * (ticks * torque - 0.5 * max_step * ticks * (ticks + 1.0))
    return bound + max(power * hold_s, 0.0)


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
    hold_s: float,
) -> float:
    """The largest gamma in [0, 1] whose torque, after rate saturation, the budget T - T_min can pay for.

    Below 1 it is found by bisection and rounded down. The power valve bounds it by P_max / (tau^T
    dq). Where even gamma = 0 is too dear (an impact), 0: ramp down as fast as the robot allows.
    """
    power = 0.0
    for i in range(tau.shape[0]):
        power += tau[i] * dq[i]
    most = max_power_w / power if power > max_power_w else 1.0
    sent = np.empty(tau.shape[0])
    saturate_torque_rate(most * tau, echoed, max_step, sent)
    if worst_case_work(sent, dq, mobility, free_acceleration, max_step, hold_s) <= budget_j:
        return most
    least = 0.0
    for _ in range(BISECTIONS):
        middle = 0.5 * (least + most)
        saturate_torque_rate(middle * tau, echoed, max_step, sent)
        if worst_case_work(sent, dq, mobility, free_acceleration, max_step, hold_s) <= budget_j:
            least = middle
        else:
            most = middle
    return least


@compiled
def bill_move(
    position: Array,
    quaternion: Array,
    before_position: Array,
    before_quaternion: Array,
    before_stiffness: Array,
    target_position: Array,
    target_quaternion: Array,
    stiffness: Array,
    clip_lower: Array,
    clip_upper: Array,
    budget_j: float,
) -> float:
    """The largest beta in [0, 1] of a move of target and stiffness that T - T_min, less the spring's energy, can pay
    for; where it is below 1, the target is put there, in place.

    A move that does not load the spring is free. The way is straight in position, the shortest turn in orientation;
    beta is found by bisection and rounded down.

    Args:
        position, quaternion: measured TCP. Shapes: (3,), (4,).
        before_position, before_quaternion, before_stiffness: of the last tick. Shapes: (3,), (4,), (6,).
        target_position, target_quaternion: after shaping. Shapes: (3,), (4,), in place.
        stiffness: asked for. Shape: (6,).
        budget_j: T - T_min.
    """
    error = pose_error(position, quaternion, before_position, before_quaternion)
    most = max(budget_j, spring_energy(error, before_stiffness, clip_lower, clip_upper))
    error = pose_error(position, quaternion, target_position, target_quaternion)
    if spring_energy(error, stiffness, clip_lower, clip_upper) <= most:
        return 1.0
    way, turn = target_position - before_position, rotation_difference(target_quaternion, before_quaternion)
    least, most_beta = 0.0, 1.0
    target_position[:], target_quaternion[:] = before_position, before_quaternion
    between_position, between = np.empty(3), np.empty(6)
    for _ in range(BISECTIONS):
        beta = 0.5 * (least + most_beta)
        for i in range(3):
            between_position[i] = before_position[i] + beta * way[i]
        for a in range(6):
            between[a] = before_stiffness[a] + beta * (stiffness[a] - before_stiffness[a])
        turned = quaternion_multiply(quaternion_from_rotation_vector(beta * turn), before_quaternion)
        error = pose_error(position, quaternion, between_position, turned)
        if spring_energy(error, between, clip_lower, clip_upper) <= most:
            least = beta
            target_position[:], target_quaternion[:] = between_position, quaternion_normalized(turned)
        else:
            most_beta = beta
    return least
