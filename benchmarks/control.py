"""The whole control tick, safety stages on, beside the same law written plainly in numpy.

    python benchmarks/control.py [--json FILE]

The arm is moving and pulled by a clipped spring; the two must agree on the torque to 1e-5 Nm before they are timed.
Then the same with a tank that can pay neither for the target's move nor for the torque, so that both are searched for.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable

import msgspec
import numpy as np
from _table import Row, print_table, write_json
from numba import njit

from serl_suite.control import (
    JointLimits,
    Parameters,
    State,
    free_space,
    make_parameters,
    make_state,
    reset_state,
    tick,
)

TARGET_P50_US, TARGET_P99_US = 20.0, 40.0
DT = 1e-3
LIMITS = JointLimits(
    lower=np.array([-2.7501, -1.7918, -2.9065, -3.0481, -2.8101, 0.54092, -3.0196]),
    upper=np.array([2.7501, 1.7918, 2.9065, -0.1458, 2.8101, 4.5205, 3.0196]),
    max_velocity=np.array([2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26]),
    max_torque=np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0]),
)


class Measurement:
    """A moving arm of about an FR3's size: seven revolute joints, Jacobian and mass matrix of their geometry."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.q = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
        self.dq = rng.normal(size=7) * 0.1
        self.position, self.quaternion = np.array([0.4, 0.0, 0.4]), np.array([1.0, 0.0, 0.0, 0.0])
        axes = np.array([[0, 0, 1], [0, 1, 0], [0, 0, 1], [0, -1, 0], [0.7, 0, 0.7], [0, -1, 0], [0, 0, -1]])
        lever = np.array([[0.4, 0, 0.4], [0.4, 0, 0.1], [0.4, 0.1, 0.1], [0.2, 0, -0.1], [0.1, 0, -0.2],
                          [0.1, 0, -0.2], [0.0, 0.02, -0.1]])  # fmt: skip
        self.jacobian = np.ascontiguousarray(np.vstack([np.cross(axes, lever).T, axes.T]).astype(float))
        coupling = rng.normal(size=(7, 7)) * 0.05
        self.mass = np.diag([0.9, 1.6, 0.9, 0.9, 0.05, 0.05, 0.01]) + coupling @ coupling.T
        self.tau_echoed = rng.normal(size=7) * 0.5
        self.target_position = self.position + np.array([0.05, 0.1, -0.02])
        self.target_quaternion = np.array([0.98, 0.19899748742132398, 0.0, 0.0])

    def arguments(self) -> tuple[np.ndarray, ...]:
        return (
            self.q, self.dq, self.position, self.quaternion, self.jacobian, self.mass, self.tau_echoed,
            self.target_position, self.target_quaternion,
        )  # fmt: skip


def plain_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """log(R_a R_b^T), quaternions xyzw."""
    vector = -a[3] * b[:3] + b[3] * a[:3] - np.cross(a[:3], b[:3])
    scalar = a[3] * b[3] + a[:3] @ b[:3]
    if scalar < 0.0:
        vector, scalar = -vector, -scalar
    sine = np.linalg.norm(vector)
    return vector * (2.0 * math.atan2(sine, scalar) / sine if sine > 1e-12 else 2.0)


def plain_target(p: Parameters, s: State, wanted: np.ndarray, wanted_quaternion: np.ndarray) -> None:
    """Stages 1 to 3 for a fresh setpoint."""
    way = np.clip(wanted, p.box_lower, p.box_upper) - s.target_position
    step = p.blend * float(np.linalg.norm(way))
    s.target_position[:] += p.blend * way * min(1.0, p.max_linear_speed * p.dt_s / max(step, 1e-300))
    turn = p.blend * plain_difference(
        wanted_quaternion / np.linalg.norm(wanted_quaternion), s.target_quaternion
    )
    turn *= min(1.0, p.max_angular_speed * p.dt_s / max(float(np.linalg.norm(turn)), 1e-300))
    half = 0.5 * np.linalg.norm(turn)
    x = np.append(0.5 * np.sinc(half / np.pi) * turn, np.cos(half))
    y = s.target_quaternion
    turned = np.append(x[3] * y[:3] + y[3] * x[:3] + np.cross(x[:3], y[:3]), x[3] * y[3] - x[:3] @ y[:3])
    s.target_quaternion[:] = turned / np.linalg.norm(turned)


def plain_tick(p: Parameters, s: State, q, dq, position, quaternion, J, M, echoed, wanted, wanted_q):  # noqa: ANN001, ANN201
    """The tick's law and safety stages as one would write them first; no faults, gamma only found to be 1."""
    arrays = (q, dq, position, quaternion, J, M, echoed, wanted, wanted_q)
    assert all(np.isfinite(a).all() for a in arrays)
    s.tank_fraction[0] = min(1.0, s.tank_fraction[0] - echoed @ (q - s.last_q) / p.tank_max)
    plain_target(p, s, wanted, wanted_q)
    mass_inverse = np.linalg.inv(M)
    root = np.sqrt(p.stiffness)
    values, vectors = np.linalg.eigh(root[:, None] * (J @ mass_inverse @ J.T) * root)
    D = 2 * p.damping_ratio * root[:, None] * (vectors / np.sqrt(np.maximum(values, 1.0)) @ vectors.T) * root
    error = np.append(position - s.target_position, plain_difference(quaternion, s.target_quaternion))
    wrench = -p.stiffness * np.clip(error, p.clip_lower, p.clip_upper) - D @ (J @ dq)
    null = p.nullspace_stiffness * (s.start_q - q) - 2 * np.sqrt(p.nullspace_stiffness) * dq
    gram = J @ J.T + p.pinv_damping**2 * np.eye(6)
    tau = J.T @ wrench + null - J.T @ np.linalg.solve(gram, J @ null)
    tau += p.joint_wall_stiffness * np.maximum(p.joint_lower + p.joint_wall_depth - q, 0)
    tau -= p.joint_wall_stiffness * np.maximum(q - p.joint_upper + p.joint_wall_depth, 0)
    wall = np.minimum(p.velocity_wall_damping, 0.5 / (p.dt_s * np.diag(mass_inverse)))
    tau -= wall * np.sign(dq) * np.maximum(np.abs(dq) - p.max_velocity + p.velocity_wall_depth, 0)
    tau = np.clip(tau, -p.max_torque, p.max_torque)
    sent = np.clip(tau, echoed - p.max_torque_step, echoed + p.max_torque_step)
    most = np.abs(mass_inverse) @ np.abs(sent) + np.abs(dq - s.last_dq) / p.dt_s
    ticks = np.floor(np.abs(sent) / p.max_torque_step)
    fastest = np.maximum(np.sign(sent) * dq + most * (ticks + 1) * p.dt_s, 0)
    ramp = ticks * np.abs(sent) - 0.5 * p.max_torque_step * ticks * (ticks + 1)
    worst = max(sent @ dq, 0) * p.dt_s + 0.5 * p.dt_s**2 * np.abs(sent) @ most + fastest @ ramp * p.dt_s
    assert worst <= s.tank_fraction[0] * p.tank_max - p.tank_min
    assert tau @ dq <= p.max_power
    s.last_q[:], s.last_dq[:] = q, dq
    return sent


@njit
def compiled_loop(parameters, state, q, dq, x, r, J, M, echoed, target, target_q, out, ticks):  # noqa: ANN001, ANN201
    for _ in range(ticks):
        tick(parameters, state, q, dq, x, r, J, M, echoed, target, target_q, 0.0, out)


def percentiles(function, calls: int) -> tuple[float, float]:  # noqa: ANN001
    """Median and 99th percentile of single calls, the better of three rounds [us]."""
    rounds = []
    for _ in range(3):
        times = np.empty(calls)
        for i in range(calls):
            start = time.perf_counter_ns()
            function()
            times[i] = time.perf_counter_ns() - start
        rounds.append(tuple(np.percentile(times, [50, 99]) / 1e3))
    return min(rounds)


def tick_on_a_tight_tank(m: Measurement) -> Callable[[], int]:
    """A tick that shortens the target's move and scales the torque; the constant state drains nothing."""
    config = msgspec.structs.replace(free_space(), tank_max=0.1, tank_min=0.0999, filter_s=0.0, held_ticks=8)
    parameters, state, out = make_parameters(config, LIMITS, DT), make_state(), np.zeros(7)
    reset_state(state, m.q, m.position, m.quaternion)

    def call() -> int:
        return tick(parameters, state, *m.arguments(), 0.0, out)

    for _ in range(50):
        fault = call()
    if fault or not (state.beta[0] < 1.0 and state.gamma[0] < 1.0):
        raise SystemExit(f"not tight: fault {fault}, beta {state.beta[0]}, gamma {state.gamma[0]}")
    return call


def measure() -> list[Row]:
    """Times our tick from Python and within compiled code, and the plain one, on the same measurement."""
    m, parameters = Measurement(), make_parameters(free_space(), LIMITS, DT)
    ours, plain, out = make_state(), make_state(), np.zeros(7)
    for state in (ours, plain):
        reset_state(state, m.q, m.position, m.quaternion)
    arguments = m.arguments()
    for _ in range(50):
        fault = tick(parameters, ours, *arguments, 0.0, out)
        expected = plain_tick(parameters, plain, *arguments)
        if fault or np.abs(out - expected).max() > 1e-5:
            raise SystemExit(f"the two ticks disagree: fault {fault}, {out} and {expected}")

    base_p50, base_p99 = percentiles(lambda: plain_tick(parameters, plain, *arguments), 2000)
    p50, p99 = percentiles(lambda: tick(parameters, ours, *arguments, 0.0, out), 10_000)
    compiled_loop(parameters, ours, *arguments, out, 1)
    inner = percentiles(lambda: compiled_loop(parameters, ours, *arguments, out, 100), 200)[0] / 100
    tight_p50, tight_p99 = percentiles(tick_on_a_tight_tank(m), 10_000)
    baseline, target = (
        f"{base_p50:.0f} / {base_p99:.0f} us",
        f"<= {TARGET_P50_US:.0f} / {TARGET_P99_US:.0f} us",
    )
    met = p50 <= TARGET_P50_US and p99 <= TARGET_P99_US
    tight_met = tight_p50 <= TARGET_P50_US and tight_p99 <= TARGET_P99_US
    return [
        Row("tick called from Python, p50 / p99", f"{p50:.1f} / {p99:.1f} us", baseline, target, met),
        Row("the same on a tight tank", f"{tight_p50:.1f} / {tight_p99:.1f} us", baseline, target, tight_met),
        Row(
            "tick called from compiled code, p50", f"{inner:.1f} us", baseline, target, inner <= TARGET_P50_US
        ),
    ]


def main() -> None:
    """Prints the table; exits 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the table here as well")
    options = parser.parse_args()
    rows = measure()
    write_json(options.json, rows)
    sys.exit(0 if print_table("Control tick", rows) else 1)


if __name__ == "__main__":
    main()
