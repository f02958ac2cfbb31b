"""The invariants of the energy tank, on a simulated arm whose integration makes next to no energy itself."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serl_suite.control import free_space, make_parameters, make_state, reset_state, tick
from serl_suite.control.limits import saturate_torque_rate
from serl_suite.control.passivity import drain_tank, filter_gain, port_work, worst_case_work
from serl_suite.control.rotations import compose_delta

DT, T_MAX, T_MIN, STEP = 1e-3, 2.0, 0.1, 1.0
INTEGRATION_J = 1e-3  # what RK4 may make up in a run
properties = settings(deadline=None, max_examples=40)


def run(arm, limits, adversary, ticks, *, filtered=True, tank=T_MAX, power_w=np.inf):
    """The filter between an adversary and the arm. Yields per tick: gamma, torque asked, torque sent, tank, energy."""
    last_q, last_dq = arm.q.copy(), arm.dq.copy()
    tank_max = tank
    for k in range(ticks):
        tank = drain_tank(tank, port_work(arm.tau, arm.q, last_q), tank_max)
        asked = np.clip(adversary(arm, k), -limits.max_torque, limits.max_torque)
        gamma, sent = 1.0, np.empty(7)
        if filtered:
            mobility = np.abs(np.linalg.inv(arm.measure()[3]))
            free = np.abs(arm.dq - last_dq) / DT
            budget = tank - T_MIN
            gamma = filter_gain(asked, arm.tau, arm.dq, mobility, free, budget, power_w, STEP, DT)
        saturate_torque_rate(gamma * asked, arm.tau, STEP, sent)
        last_q, last_dq = arm.q.copy(), arm.dq.copy()
        yield gamma, asked, sent, tank, arm.kinetic() + tank
        arm.step(sent)


def negative_damping(arm, _):
    return 5.0 * arm.dq


def test_negative_damping_runs_away_without_the_filter_and_not_with_it(make_arm, limits):
    energies = {}
    for filtered in (False, True):
        arm = make_arm()
        arm.dq = np.full(7, 0.05)
        start = arm.kinetic()
        ticks = list(run(arm, limits, negative_damping, 600, filtered=filtered))
        energies[filtered] = arm.kinetic()
        if filtered:
            assert min(t for *_, t, _ in ticks) >= T_MIN
    assert energies[False] > 2400.0
    assert start + 1.0 < energies[True] <= start + T_MAX - T_MIN + INTEGRATION_J


phases = st.lists(
    st.tuples(st.sampled_from(["damping", "random", "bang", "hold", "reverse"]), st.floats(0.1, 100.0)),
    min_size=1,
    max_size=4,
)


def adversary_of(plan, seed):
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-1.0, 1.0, (len(plan), 200, 7))

    def adversary(arm, k):
        kind, gain = plan[(k // 150) % len(plan)]
        wave = noise[(k // 150) % len(plan)]
        return {
            "damping": gain * arm.dq,
            "random": gain * wave[k % 200],
            "bang": gain * np.sign(arm.dq + 1e-9),
            "hold": gain * wave[0],
            "reverse": -gain * np.sign(arm.dq),
        }[kind]

    return adversary


@properties
@given(phases, st.integers(0, 1000), st.floats(0.0, 0.5))
def test_no_adversary_takes_more_than_the_tank_holds(make_arm, limits, plan, seed, speed):
    arm = make_arm()
    arm.dq = np.full(7, speed)
    start = arm.kinetic() + T_MAX
    for _, _, sent, tank, energy in run(arm, limits, adversary_of(plan, seed), 600):
        assert tank >= T_MIN
        assert energy <= start + INTEGRATION_J
        assert np.all(np.abs(sent - arm.tau) <= STEP + 1e-12)
        assert np.all(np.isfinite(sent))


@properties
@given(phases, st.integers(0, 1000))
def test_the_filter_is_transparent_to_the_bit_while_the_tank_is_ample(make_arm, limits, plan, seed):
    arm = make_arm()
    for gamma, asked, sent, _, _ in run(arm, limits, adversary_of(plan, seed), 150, tank=1e6):
        expected = np.empty(7)
        saturate_torque_rate(asked, arm.tau, STEP, expected)
        assert gamma == 1.0
        np.testing.assert_array_equal(sent, expected)


def test_the_power_valve_bounds_the_power_asked_for():
    rng = np.random.default_rng(0)
    for _ in range(100):
        tau, dq = rng.normal(size=(2, 7)) * 10.0
        gamma = filter_gain(tau, tau, dq, np.eye(7), np.zeros(7), 1e6, 5.0, STEP, DT)
        assert gamma * (tau @ dq) <= 5.0 + 1e-9
        assert gamma == 1.0 or gamma * (tau @ dq) == pytest.approx(5.0)


def test_an_arm_pushed_from_outside_fills_the_tank_no_further_than_its_size(arm):
    assert drain_tank(1.0, -5.0, 2.0) == 2.0
    assert drain_tank(1.0, 0.25, 2.0) == 0.75
    assert port_work(np.arange(7.0), np.full(7, 0.1), np.zeros(7)) == pytest.approx(2.1)


def test_worst_case_is_the_next_tick_alone_for_a_torque_that_can_stop_at_once():
    tau, dq = np.full(7, 0.5), np.full(7, 2.0)
    mobility = np.eye(7) * 4.0
    expected = tau @ dq * DT + 0.5 * DT**2 * np.abs(tau) @ (4.0 * tau + 3.0)
    assert worst_case_work(tau, dq, mobility, np.full(7, 3.0), STEP, DT) == pytest.approx(expected)


def test_worst_case_covers_the_ramp_to_zero(arm):
    arm.dq = np.array([0.5, -0.5, 0.3, 0.8, -1.0, 1.0, 0.5])
    tau = np.array([9.7, -20.0, 3.0, 30.0, -5.0, 8.0, 2.0])
    mobility = np.abs(np.linalg.inv(arm.measure()[3]))
    bound = worst_case_work(tau, arm.dq, mobility, np.full(7, 20.0), STEP, DT)
    work = 0.0
    while np.any(tau):
        before = arm.q.copy()
        arm.step(tau)
        work += port_work(tau, arm.q, before)
        tau = np.sign(tau) * np.maximum(np.abs(tau) - STEP, 0.0)
    assert 0.1 < work <= bound


def test_work_is_accounted_for_up_to_a_residual_that_shrinks_with_the_tick(make_arm):
    residuals = []
    for dt in (2e-3, 1e-3, 5e-4):
        arm, work, start = make_arm(), 0.0, 0.0
        arm.dq = np.full(7, 0.1)
        start = arm.kinetic()
        for k in range(round(0.3 / dt)):
            tau, external = 0.5 * np.cos(np.arange(7) + 8.0 * k * dt), -0.2 * arm.dq + 0.1
            before, speed = arm.q.copy(), arm.dq.copy()
            arm.step(tau, dt, external)
            work += port_work(tau, arm.q, before) + external @ speed * dt
        residuals.append(abs(arm.kinetic() - start - work))
    assert residuals[0] / residuals[1] == pytest.approx(2.0, rel=0.2)
    assert residuals[1] / residuals[2] == pytest.approx(2.0, rel=0.2)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.3, 3.0))
def test_the_whole_tick_keeps_the_tank_under_wild_setpoints(make_arm, limits, seed, tank_max):
    """Setpoint steps of up to 20 cm and 1 rad every 50 ms, into faults and through them."""
    config = msgspec.structs.replace(free_space(), tank_max=tank_max, filter_s=0.0, max_linear_speed=10.0)
    parameters, state = make_parameters(config, limits, DT), make_state()
    rng, arm, out = np.random.default_rng(seed), make_arm(), np.zeros(7)
    position, quaternion, _, _ = arm.measure()
    reset_state(state, arm.q, position, quaternion)
    for k in range(600):
        measured_position, measured_quaternion, jacobian, mass = arm.measure()
        if k % 50 == 0:
            goal = compose_delta(position, quaternion, rng.uniform(-0.2, 0.2, 3), rng.uniform(-0.6, 0.6, 3))
        measured = (measured_position, measured_quaternion, jacobian, mass, arm.tau)
        tick(parameters, state, arm.q, arm.dq, *measured, *goal, 0.0, out)
        assert state.tank_fraction[0] * tank_max >= config.tank_min
        assert arm.kinetic() + state.tank_fraction[0] * tank_max <= tank_max + INTEGRATION_J
        arm.step(out)
