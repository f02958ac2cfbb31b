"""One control tick: everything between a measurement and a torque, in the order that safety asks for.

    1 setpoint intake   2 command shaping   3 workspace   4 impedance law   5 joint walls and caps
    6 passivity filter  7 torque-rate saturation          8 finite check

The same compiled function runs in the twin and on the robot. It allocates a few small arrays, raises nothing,
reads no clock, and depends on its arguments alone, to the bit.
"""

import math

import numpy as np

from serl_suite.control.compiled import Array, compiled
from serl_suite.control.faults import Fault
from serl_suite.control.impedance import (
    impedance_wrench,
    nullspace_torque,
    pose_error,
    task_damping,
)
from serl_suite.control.limits import (
    add_joint_walls,
    add_velocity_walls,
    cap_torque,
    clip_to_box,
    leaves_box,
    saturate_torque_rate,
)
from serl_suite.control.linear import all_finite, cholesky, cholesky_inverse
from serl_suite.control.parameters import Parameters
from serl_suite.control.passivity import bill_move, drain_tank, filter_gain, port_work
from serl_suite.control.rotations import quaternion_normalized
from serl_suite.control.shaping import follow_position, follow_quaternion, ramped_down
from serl_suite.control.stability import STABLE_GAIN, mode_gain
from serl_suite.control.state import State

__all__ = ["tick"]

_NONE = int(Fault.NONE)
_STALE_SETPOINT = int(Fault.STALE_SETPOINT)
_INVALID_SETPOINT = int(Fault.INVALID_SETPOINT)
_INVALID_STATE = int(Fault.INVALID_STATE)
_INVALID_TORQUE = int(Fault.INVALID_TORQUE)
_JOINT_POSITION = int(Fault.JOINT_POSITION)
_JOINT_VELOCITY = int(Fault.JOINT_VELOCITY)
_WORKSPACE = int(Fault.WORKSPACE)
_UNSTABLE_GAINS = int(Fault.UNSTABLE_GAINS)


@compiled
def tick(
    parameters: Parameters,
    state: State,
    q: Array,
    dq: Array,
    position: Array,
    quaternion: Array,
    jacobian: Array,
    mass: Array,
    tau_echoed: Array,
    target_position: Array,
    target_quaternion: Array,
    setpoint_age_s: float,
    tau_out: Array,
) -> int:
    """Writes the torque to send (without gravity) into `tau_out` and returns the latched `Fault`, 0 for none.

    After a fault the torque brakes every joint, within caps and rate, until `recover` or `reset_state`.

    Args:
        q, dq: measured joints. Shape: (7,) [rad, rad/s].
        position, quaternion: measured TCP in the base frame. Shapes: (3,) [m], (4,).
        jacobian: of the TCP in the base frame, linear rows first. Shape: (6, 7).
        mass: joint-space mass matrix. Shape: (7, 7) [kg m^2].
        tau_echoed: the torque (without gravity) that the robot reports to have held since the last tick.
            Shape: (7,) [Nm].
        target_position, target_quaternion: newest setpoint in the base frame. Shapes: (3,) [m], (4,).
        setpoint_age_s: since that setpoint arrived.
        tau_out: written. Shape: (7,) [Nm].
    """
    p = parameters
    fault = state.fault[0]
    measured = all_finite(q) and all_finite(dq) and all_finite(tau_echoed)
    if measured:
        tank = state.tank_fraction[0] * p.tank_max
        work = port_work(tau_echoed, q, state.last_q)
        state.tank_fraction[0] = drain_tank(tank, work, p.tank_max) / p.tank_max
        state.work_j[0] += work
        state.peak_power_w[0] = max(state.peak_power_w[0], work / p.dt_s)
        state.least_fraction[0] = min(state.least_fraction[0], state.tank_fraction[0])
    if fault == _NONE:
        modelled = all_finite(jacobian.ravel()) and all_finite(mass.ravel())
        if not (measured and modelled and all_finite(position) and all_finite(quaternion)):
            fault = _INVALID_STATE
        else:
            fault = _move_target(
                p, state, position, quaternion, target_position, target_quaternion, setpoint_age_s
            )
    if fault == _NONE:
        fault = _torque(p, state, q, dq, position, quaternion, jacobian, mass, tau_echoed, tau_out)
    if fault != _NONE:
        _stop_torque(p, state, dq, tau_echoed, tau_out)
    if measured:
        state.last_q[:] = q
        state.last_dq[:] = dq
    state.tau_sent[:] = tau_out
    state.fault[0] = fault
    return int(fault)


@compiled
def _move_target(
    p: Parameters,
    state: State,
    position: Array,
    quaternion: Array,
    target_position: Array,
    target_quaternion: Array,
    age_s: float,
) -> int:
    """Stages 1 to 3: the setpoint and its age move target and stiffness, as far as the tank can pay for it."""
    x, y, z, w = target_quaternion[0], target_quaternion[1], target_quaternion[2], target_quaternion[3]
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if not (all_finite(target_position) and abs(norm - 1.0) <= 1e-3 and math.isfinite(age_s)):
        return _INVALID_SETPOINT
    for share in state.wanted_share:
        if not 0.0 <= share < math.inf:
            return _INVALID_SETPOINT
    if age_s >= p.setpoint_fault_s:
        return _STALE_SETPOINT
    linear_cap, angular_cap = p.max_linear_speed, p.max_angular_speed
    if age_s > p.setpoint_hold_s:
        linear_cap = ramped_down(state.target_speed[0], p.hold_linear_deceleration, p.dt_s)
        angular_cap = ramped_down(state.target_speed[1], p.hold_angular_deceleration, p.dt_s)
    before_position, before_quaternion = state.target_position.copy(), state.target_quaternion.copy()
    # the box bounds what is asked for; the target, on its way from inside, then never leaves it, and a target
    # that was reset to an arm outside comes in at the speed of any other motion instead of jumping
    wanted = clip_to_box(target_position, p.box_lower, p.box_upper)
    moved = follow_position(state.target_position, wanted, p.blend, linear_cap * p.dt_s)
    turned = follow_quaternion(
        state.target_quaternion, quaternion_normalized(target_quaternion), p.blend, angular_cap * p.dt_s
    )
    share = state.share + p.blend * (state.wanted_share - state.share)
    beta = 1.0
    if p.passivity:
        budget = state.tank_fraction[0] * p.tank_max - p.tank_min
        beta = bill_move(
            position, quaternion, before_position, before_quaternion, p.stiffness * state.share,
            state.target_position, state.target_quaternion, p.stiffness * share,
            p.clip_lower, p.clip_upper, budget,
        )  # fmt: skip
    for a in range(6):
        state.share[a] = share[a] if beta == 1.0 else state.share[a] + beta * (share[a] - state.share[a])
    state.beta[0] = beta
    state.target_speed[0] = beta * moved / p.dt_s
    state.target_speed[1] = beta * turned / p.dt_s
    return _NONE


@compiled
def _torque(
    p: Parameters,
    state: State,
    q: Array,
    dq: Array,
    position: Array,
    quaternion: Array,
    jacobian: Array,
    mass: Array,
    tau_echoed: Array,
    tau_out: Array,
) -> int:
    """Stages 4 to 8: from the target to the torque."""
    n = q.shape[0]
    factor = np.empty((n, n))
    if not cholesky(mass, factor):
        return _INVALID_STATE
    mass_inverse = cholesky_inverse(factor)

    twist = np.zeros(6)
    for a in range(6):
        for j in range(n):
            twist[a] += jacobian[a, j] * dq[j]
    error = pose_error(position, quaternion, state.target_position, state.target_quaternion)
    stiffness = p.stiffness * state.share
    damping, fastest = task_damping(stiffness, p.damping_ratio, jacobian, mass_inverse)
    if mode_gain(fastest, p.damping_ratio, p.dt_s) > STABLE_GAIN:
        return _UNSTABLE_GAINS
    wrench = impedance_wrench(error, twist, stiffness, damping, p.clip_lower, p.clip_upper)
    posture = p.posture if p.posture_fixed else state.start_q
    tau = nullspace_torque(q, dq, posture, jacobian, p.nullspace_stiffness, p.pinv_damping)
    for j in range(n):
        for a in range(6):
            tau[j] += jacobian[a, j] * wrench[a]

    fault = _limit(p, q, dq, position, twist, mass_inverse, tau)
    if fault != _NONE:
        return fault
    _filter(p, state, dq, mass_inverse, tau_echoed, tau)
    saturate_torque_rate(tau, tau_echoed, p.max_torque_step, tau_out)
    return _NONE


@compiled
def _limit(
    p: Parameters, q: Array, dq: Array, position: Array, twist: Array, mass_inverse: Array, tau: Array
) -> int:
    """Stage 5: walls and caps on the torque, in place, and the limits whose violation ends the motion."""
    if add_joint_walls(q, dq, p.joint_lower, p.joint_upper, p.joint_wall_depth, p.joint_wall_stiffness, tau):
        return _JOINT_POSITION
    wall_damping = np.empty(q.shape[0])
    for j in range(q.shape[0]):
        # at most half of what would stop the joint within one tick: more would shake a light wrist
        wall_damping[j] = min(p.velocity_wall_damping, 0.5 / (p.dt_s * mass_inverse[j, j]))
    if add_velocity_walls(dq, p.max_velocity, p.velocity_wall_depth, wall_damping, tau):
        return _JOINT_VELOCITY
    if leaves_box(position, twist, p.box_lower, p.box_upper, p.box_margin):
        return _WORKSPACE
    if not all_finite(tau):
        return _INVALID_TORQUE
    cap_torque(tau, p.max_torque)
    return _NONE


@compiled
def _filter(
    p: Parameters, state: State, dq: Array, mass_inverse: Array, tau_echoed: Array, tau: Array
) -> None:
    """Stage 6: the torque scaled by what the tank can pay for, in place."""
    gamma = 1.0
    if p.passivity:
        free = np.abs(dq - state.last_dq) / p.dt_s
        budget = state.tank_fraction[0] * p.tank_max - p.tank_min
        mobility = np.abs(mass_inverse)
        step, hold = p.max_torque_step, p.held_ticks * p.dt_s
        gamma = filter_gain(tau, tau_echoed, dq, mobility, free, budget, p.max_power, step, hold)
        for j in range(tau.shape[0]):
            tau[j] *= gamma
    state.gamma[0] = gamma


@compiled
def _stop_torque(p: Parameters, state: State, dq: Array, tau_echoed: Array, tau_out: Array) -> None:
    """Brakes every joint: -d dq within caps and rate; finite whatever was measured."""
    for j in range(tau_out.shape[0]):
        brake = -p.stop_damping[j] * dq[j] if math.isfinite(dq[j]) else 0.0
        brake = min(max(brake, -p.max_torque[j]), p.max_torque[j])
        echoed = tau_echoed[j] if math.isfinite(tau_echoed[j]) else state.tau_sent[j]
        tau_out[j] = min(max(brake, echoed - p.max_torque_step), echoed + p.max_torque_step)
