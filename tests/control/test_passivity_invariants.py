"""The invariants of the energy tank on the MuJoCo arm, against adversaries that hypothesis makes up.

The arm is integrated by Runge-Kutta: Euler's method makes up joules in a second of random torque, which an audit
would take for the controller's. It has no friction, no limits and no contacts, so nothing but the controller and the
push from outside puts energy in or takes it out. 1e5 ticks in all; the slow tests run 1e6.
"""

import msgspec
import mujoco
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from serl_hardware.franka import fr3
from serl_hardware.franka.model import TCP_SITE, add_franka

from serl_suite.control import (
    Fault,
    JointLimits,
    free_space,
    make_parameters,
    make_state,
    recover,
    reset_state,
    tick,
)
from serl_suite.control.impedance import pose_error, spring_energy
from serl_suite.control.limits import saturate_torque_rate
from serl_suite.control.passivity import bill_move, drain_tank, filter_gain, port_work
from serl_suite.control.rotations import compose_delta, quaternion_from_rotation_vector

DT, T_MAX, T_MIN, STEP = 1e-3, 2.0, 0.1, 1.0
READY = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
TICKS = 500
"""Of an example."""
LOSS, HELD_TICKS = 0.1, 8
"""Share of packets lost, and the run of losses that the tank keeps in reserve: one in 1e8 is longer."""
INTEGRATION_J = 5e-3
"""What Runge-Kutta may make up in an example, at several rad/s."""
RK4, EULER = mujoco.mjtIntegrator.mjINT_RK4, mujoco.mjtIntegrator.mjINT_EULER
quick = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
lengths = pytest.mark.parametrize(
    "length",
    [quick, pytest.param(settings(quick, max_examples=1000), marks=pytest.mark.slow)],
    ids=["1e5", "1e6"],
)
"""Ticks of the two audits together."""


def build(integrator=RK4, dt=DT, damping=0.0):
    spec = mujoco.MjSpec()
    add_franka(spec)
    for part in [*spec.tendons, *spec.actuators]:
        spec.delete(part)
    for joint in spec.joints:
        if joint.name.startswith("finger"):
            spec.delete(joint)
        else:
            joint.frictionloss, joint.limited = 0.0, mujoco.mjtLimited.mjLIMITED_FALSE
            joint.damping = (damping, 0.0, 0.0)
    spec.option.integrator, spec.option.timestep, spec.option.gravity = integrator, dt, (0.0, 0.0, 0.0)
    spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_EULERDAMP
    return spec.compile()


MODEL = build()
LOWER = np.tril_indices(7)
LIMITS = JointLimits(fr3().q_min, fr3().q_max, fr3().max_velocity, fr3().max_torque)
WILD = msgspec.structs.replace(free_space(), filter_s=0.0, max_linear_speed=10.0, max_angular_speed=20.0)
"""Setpoints reach the spring unfiltered."""


class Arm:
    """The arm alone; `tau` is the torque it holds, which a robot would echo."""

    def __init__(self, model=MODEL, speed=0.0):
        self.model, self.data = model, mujoco.MjData(model)
        self.data.qpos[:], self.data.qvel[:] = READY, speed
        self.q, self.dq, self.tau = self.data.qpos, self.data.qvel, np.zeros(7)
        self.site = model.site(TCP_SITE).id
        self._linear, self._angular = np.zeros((3, 7)), np.zeros((3, 7))
        mujoco.mj_step1(model, self.data)

    def mass(self):
        """From MuJoCo's packed lower triangle, which is dense for a chain. Shape: (7, 7)"""
        mass = np.zeros((7, 7))
        mass[LOWER] = mass.T[LOWER] = self.data.M
        return mass

    def measure(self):
        """TCP position, quaternion xyzw, Jacobian (linear first, base frame) and mass matrix."""
        mujoco.mj_jacSite(self.model, self.data, self._linear, self._angular, self.site)
        wxyz = np.zeros(4)
        mujoco.mju_mat2Quat(wxyz, self.data.site_xmat[self.site])
        position = self.data.site_xpos[self.site].copy()
        return position, wxyz[[1, 2, 3, 0]], np.vstack([self._linear, self._angular]), self.mass()

    def kinetic(self):
        return float(0.5 * self.dq @ self.mass() @ self.dq)

    def step(self, tau, push=0.0):
        """Holds `tau` and the push for one tick; returns the work of the push [J]."""
        self.tau, before = tau.copy(), self.q.copy()
        self.data.qfrc_applied[:] = tau + push
        mujoco.mj_step(self.model, self.data)
        mujoco.mj_step1(self.model, self.data)
        return float(np.sum(push * (self.q - before)))


class Link:
    """Loses a share of what is sent; the robot then goes on holding what it has."""

    def __init__(self, rng, lossy):
        self._rng, self._share = rng, LOSS if lossy else 0.0

    def deliver(self, sent, held):
        return held if self._rng.random() < self._share else sent


def filtered(arm, asked, last_dq, tank_j, held_ticks):
    """The passivity filter and the rate saturation, as the tick puts them together."""
    mobility, sent = np.abs(np.linalg.inv(arm.mass())), np.empty(7)
    free = np.abs(arm.dq - last_dq) / DT
    hold = held_ticks * DT
    gamma = filter_gain(asked, arm.tau, arm.dq, mobility, free, tank_j - T_MIN, np.inf, STEP, hold)
    saturate_torque_rate(gamma * asked, arm.tau, STEP, sent)
    return gamma, sent


class Attack(msgspec.Struct, frozen=True):
    """A policy that wants energy out of the controller."""

    kind: str
    gain: float

    def torque(self, arm, noise):
        return {
            "negative damping": self.gain * arm.dq,
            "random": self.gain * noise,
            "bang": self.gain * np.sign(arm.dq + 1e-9),
            "reverse": -self.gain * np.sign(arm.dq),
            "none": np.zeros(7),
        }[self.kind]


attacks = st.lists(
    st.builds(
        Attack,
        st.sampled_from(["negative damping", "random", "bang", "reverse", "none"]),
        st.floats(0.1, 80.0),
    ),
    min_size=1,
    max_size=5,
)
seeds = st.integers(0, 2**32 - 1)
pushes = st.floats(0.0, 3.0)


def push_at(k, size, phase):
    """A push of up to `size` Nm on every joint, that starts softly and swings at 2 Hz."""
    return size * min(1.0, k / 200) * np.sin(4 * np.pi * k * DT + phase + np.arange(7))


def audit_filter(plan, seed, speed, push, lossy):
    """T >= T_min at every tick, and KE + T never above H_0 plus the work of the push."""
    rng = np.random.default_rng(seed)
    arm, link, noise = Arm(speed=speed), Link(rng, lossy), rng.uniform(-1, 1, (TICKS, 7))
    tank, external, start = T_MAX, 0.0, arm.kinetic() + T_MAX
    last_q, last_dq = arm.q.copy(), arm.dq.copy()
    for k in range(TICKS):
        tank = drain_tank(tank, port_work(arm.tau, arm.q, last_q), T_MAX)
        assert tank >= T_MIN
        assert arm.kinetic() + tank <= start + external + INTEGRATION_J
        asked = np.clip(plan[k // 100 % len(plan)].torque(arm, noise[k]), -80.0, 80.0)
        _, sent = filtered(arm, asked, last_dq, tank, HELD_TICKS if lossy else 1)
        last_q, last_dq = arm.q.copy(), arm.dq.copy()
        external += arm.step(link.deliver(sent, arm.tau), push_at(k, push, seed % 7))


@lengths
def test_no_torque_takes_more_than_the_tank_holds(length):
    length(given(attacks, seeds, st.floats(0.0, 0.5), pushes, st.booleans())(audit_filter))()


class Order(msgspec.Struct, frozen=True):
    """What a policy asks of the whole tick for 100 ms: a jump of the setpoint and stiffnesses to ramp to."""

    step_m: tuple[float, float, float]
    turn_rad: tuple[float, float, float]
    share: tuple[float, ...]


far, round_about, shares = st.floats(-0.2, 0.2), st.floats(-0.6, 0.6), st.floats(0.0, 4.0)
orders = st.lists(
    st.builds(Order, st.tuples(*[far] * 3), st.tuples(*[round_about] * 3), st.tuples(*[shares] * 6)),
    min_size=1,
    max_size=5,
)


def run_ticks(config, plan, seed, push, lossy):
    """The tick on the arm under a plan of orders, into faults and on through them. Yields arm, state, external work."""
    parameters, state = make_parameters(config, LIMITS, DT), make_state()
    rng, out, external = np.random.default_rng(seed), np.zeros(7), 0.0
    arm, link = Arm(), Link(rng, lossy)
    start = arm.measure()[:2]
    reset_state(state, arm.q, *start)
    for k in range(TICKS):
        order = plan[k // 100 % len(plan)]
        goal = compose_delta(*start, np.array(order.step_m), np.array(order.turn_rad))
        state.wanted_share[:] = order.share
        measured = arm.measure()
        tick(parameters, state, arm.q, arm.dq, *measured, arm.tau, *goal, 0.0, out)
        yield arm, state, out, external
        external += arm.step(link.deliver(out, arm.tau), push_at(k, push, seed % 7))


def audit_tick(plan, seed, tank_max, push, lossy):
    """As `audit_filter`, for the whole tick."""
    config = msgspec.structs.replace(
        WILD, tank_max=tank_max, tank_min=T_MIN, held_ticks=HELD_TICKS if lossy else 1
    )
    for arm, state, out, external in run_ticks(config, plan, seed, push, lossy):
        tank = state.tank_fraction[0] * tank_max
        assert tank >= T_MIN
        assert arm.kinetic() + tank <= tank_max + external + INTEGRATION_J
        assert np.all(np.isfinite(out))
        assert np.all(np.abs(out - arm.tau) <= STEP + 1e-12)


@lengths
def test_no_setpoint_or_stiffness_takes_more_than_the_tank_holds(length):
    length(given(orders, seeds, st.floats(0.3, 4.0), pushes, st.booleans())(audit_tick))()


@quick
@given(attacks, seeds, st.booleans())
def test_the_filter_is_transparent_to_the_bit_while_the_tank_is_ample(plan, seed, lossy):
    rng = np.random.default_rng(seed)
    arm, link, expected = Arm(), Link(rng, lossy), np.empty(7)
    last_dq = arm.dq.copy()
    for k in range(150):
        asked = np.clip(plan[k // 50 % len(plan)].torque(arm, rng.uniform(-1, 1, 7)), -80.0, 80.0)
        gamma, sent = filtered(arm, asked, last_dq, 1e6, HELD_TICKS)
        saturate_torque_rate(asked, arm.tau, STEP, expected)
        assert gamma == 1.0
        np.testing.assert_array_equal(sent, expected)
        last_dq = arm.dq.copy()
        arm.step(link.deliver(sent, arm.tau))


@settings(quick, max_examples=40)
@given(orders, seeds, pushes, st.booleans())
def test_the_whole_tick_is_the_same_to_the_bit_with_an_ample_tank_and_without_one(plan, seed, push, lossy):
    """Setpoint jumps, stiffness ramps, lost packets and pushes included."""
    ample = msgspec.structs.replace(WILD, tank_max=1e6, max_power=1e6, held_ticks=HELD_TICKS)
    off = msgspec.structs.replace(ample, passivity=False)
    runs = (run_ticks(config, plan, seed, push, lossy) for config in (ample, off))
    for (arm, state, out, _), (bare_arm, _, bare_out, _) in zip(*runs, strict=True):
        assert (state.gamma[0], state.beta[0]) == (1.0, 1.0)
        np.testing.assert_array_equal(out, bare_out)
        np.testing.assert_array_equal(arm.q, bare_arm.q)


def test_negative_damping_makes_thousands_of_joules_without_the_filter_and_no_more_than_the_tank_with_it():
    energies = {}
    for with_filter in (False, True):
        arm = Arm(speed=0.05)
        start, tank, last_q, last_dq = arm.kinetic(), T_MAX, arm.q.copy(), arm.dq.copy()
        for _ in range(1000):
            tank = drain_tank(tank, port_work(arm.tau, arm.q, last_q), T_MAX)
            asked, sent = np.clip(10.0 * arm.dq, -LIMITS.max_torque, LIMITS.max_torque), np.empty(7)
            if with_filter:
                assert tank >= T_MIN
                _, sent = filtered(arm, asked, last_dq, tank, 1)
            else:
                saturate_torque_rate(asked, arm.tau, STEP, sent)
            last_q, last_dq = arm.q.copy(), arm.dq.copy()
            arm.step(sent)
        energies[with_filter] = arm.kinetic()
    assert energies[False] > 2400.0
    assert start + 0.5 * T_MAX < energies[True] <= start + T_MAX - T_MIN + INTEGRATION_J


def residual(integrator, dt, seconds, damping=0.0, torque=0.5):
    """|change of kinetic energy - W - W_ext| of a run under smooth torques; W_ext is the joints' damping."""
    arm, work = Arm(build(integrator, dt, damping), speed=0.1), 0.0
    start = arm.kinetic()
    for k in range(round(seconds / dt)):
        tau = torque * np.cos(np.arange(7) + 8.0 * k * dt)
        before, braking = arm.q.copy(), -damping * arm.dq
        work += arm.step(tau) + port_work(tau + braking, arm.q, before)
    return abs(arm.kinetic() - start - work)


@pytest.mark.parametrize(("integrator", "damping"), [(EULER, 0.0), (EULER, 0.5), (RK4, 0.5)])
def test_what_the_audit_cannot_explain_halves_with_the_tick(integrator, damping):
    """Euler's error, and damping measured once a tick, are both of the order of the tick."""
    residuals = [residual(integrator, dt, 0.3, damping) for dt in (2e-3, 1e-3, 5e-4)]
    assert residuals[0] / residuals[1] == pytest.approx(2.0, rel=0.1)
    assert residuals[1] / residuals[2] == pytest.approx(2.0, rel=0.1)


def test_exact_port_work_explains_all_of_the_energy_of_an_arm_without_friction():
    assert residual(RK4, 1e-3, 1.0) < 1e-6


def test_euler_makes_up_work_that_runge_kutta_does_not():
    made_up = {}
    for integrator in (EULER, RK4):
        arm, work, rng = Arm(build(integrator)), 0.0, np.random.default_rng(0)
        for _ in range(1000):
            tau, before = rng.uniform(-20.0, 20.0, 7), arm.q.copy()
            arm.step(tau)
            work += port_work(tau, arm.q, before)
        made_up[integrator] = abs(arm.kinetic() - work)
    assert made_up[EULER] > 0.5
    assert made_up[RK4] < 0.02


six = arrays(np.float64, 6, elements=st.floats(0.0, 4000.0))
three = arrays(np.float64, 3, elements=st.floats(-0.3, 0.3))
CLIP = np.array([0.02, 0.05, 0.01, 0.2, 0.3, 0.1])


def potential(position, quaternion, target, target_quaternion, stiffness):
    error = pose_error(position, quaternion, target, target_quaternion)
    return spring_energy(error, stiffness, -CLIP, CLIP)


@settings(deadline=None, max_examples=300)
@given(three, three, three, three, six, six, st.floats(0.0, 20.0))
def test_a_move_loads_the_spring_with_no_more_than_the_tank_can_pay(way, turn, old, old_turn, k0, k1, budget):
    """Target and stiffness move together; what they get is the most that is covered, and all where all is."""
    position, quaternion = np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])
    before, before_q = old, quaternion_from_rotation_vector(old_turn)
    wanted, wanted_q = way, quaternion_from_rotation_vector(turn)
    target, target_q = wanted.copy(), wanted_q.copy()
    beta = bill_move(position, quaternion, before, before_q, k0, target, target_q, k1, -CLIP, CLIP, budget)
    covered = max(budget, potential(position, quaternion, before, before_q, k0))
    assert potential(position, quaternion, target, target_q, k0 + beta * (k1 - k0)) <= covered + 1e-9
    if beta == 1.0:
        np.testing.assert_array_equal(target, wanted)
        np.testing.assert_array_equal(target_q, wanted_q)
    else:
        assert potential(position, quaternion, wanted, wanted_q, k1) > covered
        np.testing.assert_allclose(target, before + beta * (wanted - before), atol=1e-12)
        if beta == 0.0:
            np.testing.assert_array_equal(target_q, before_q)


def test_a_stiffness_step_gets_what_the_tank_can_pay():
    """1 cm of stretch from 500 N/m up: 0.025 J are in the spring, 0.1 J are there, so 2000 N/m and no more."""
    target, q = np.array([0.01, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0])
    soft, stiff = np.full(6, 500.0), np.full(6, 5000.0)
    beta = bill_move(np.zeros(3), q, target.copy(), q, soft, target, q.copy(), stiff, -CLIP, CLIP, 0.1)
    assert 500.0 + beta * 4500.0 == pytest.approx(2000.0, abs=4500.0 / 1024)


def test_a_stiffness_asked_for_comes_with_the_filter_and_only_as_a_share_that_makes_sense():
    parameters, state, arm = make_parameters(free_space(), LIMITS, DT), make_state(), Arm()
    position, quaternion, jacobian, mass = arm.measure()
    reset_state(state, arm.q, position, quaternion)
    state.wanted_share[:] = 2.0
    measured, out = (arm.q, arm.dq, position, quaternion, jacobian, mass, arm.tau), np.zeros(7)
    for _ in range(50):
        assert tick(parameters, state, *measured, position, quaternion, 0.0, out) == Fault.NONE
    np.testing.assert_allclose(state.share, 2.0 - np.exp(-1.0), rtol=1e-9)  # one time constant
    for bad in (np.nan, np.inf, -0.5):
        state.wanted_share[2] = bad
        assert tick(parameters, state, *measured, position, quaternion, 0.0, out) == Fault.INVALID_SETPOINT
        recover(state, arm.q, position, quaternion)
    reset_state(state, arm.q, position, quaternion)
    np.testing.assert_array_equal(state.share, 1.0)


def test_the_tick_tallies_work_power_and_the_lowest_level():
    plan = [Order((0.05, 0.05, 0.0), (0.0, 0.0, 0.0), (1.0,) * 6)]
    work, level = [0.0], [1.0]
    last_q = None
    config = msgspec.structs.replace(WILD, tank_max=5.0)
    for arm, state, _, _ in run_ticks(config, plan, 0, 0.0, False):
        if last_q is not None:
            work.append(port_work(arm.tau, arm.q, last_q))
        level.append(state.tank_fraction[0])
        last_q = arm.q.copy()
    assert state.work_j[0] == pytest.approx(sum(work))
    assert state.peak_power_w[0] == pytest.approx(max(work) / DT)
    assert state.least_fraction[0] == min(level) < 1.0
