"""The whole tick on a simulated arm: what it holds to whatever is asked of it, and how each fault arises and ends."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serl_suite.control import (
    ControlConfig,
    Fault,
    InvalidControlConfig,
    JointLimits,
    free_space,
    insertion,
    make_parameters,
    make_state,
    recover,
    reset_state,
    tick,
)
from serl_suite.control.rotations import compose_delta, rotation_difference
from serl_suite.control.stability import STABLE_GAIN, loop_gain

DT = 1e-3
WIDE = {"box_lower": (-2.0, -2.0, -2.0), "box_upper": (2.0, 2.0, 2.0)}


class Rig:
    """An arm under the tick, with a setpoint that can grow old and a link that can lose packets."""

    def __init__(self, arm, limits, config=None):
        self.arm, self.config = arm, config or free_space()
        self.parameters, self.state = make_parameters(self.config, limits, DT), make_state()
        self.out, self.age = np.zeros(7), 0.0
        self.position, self.quaternion, _, _ = arm.measure()
        self.goal_position, self.goal_quaternion = self.position.copy(), self.quaternion.copy()
        reset_state(self.state, arm.q, self.position, self.quaternion)

    def tick(self, *, lost=False, **changes):
        """One tick and one step of the arm; `changes` replace arguments of the tick by name."""
        self.position, self.quaternion, jacobian, mass = self.arm.measure()
        arguments = {
            "q": self.arm.q, "dq": self.arm.dq, "position": self.position, "quaternion": self.quaternion,
            "jacobian": jacobian, "mass": mass, "tau_echoed": self.arm.tau, "target_position": self.goal_position,
            "target_quaternion": self.goal_quaternion, "setpoint_age_s": self.age,
        }  # fmt: skip
        arguments.update(changes)
        fault = tick(self.parameters, self.state, *arguments.values(), self.out)
        self.arm.step(self.arm.tau if lost else self.out)
        return Fault(fault)

    def run(self, ticks):
        for _ in range(ticks):
            fault = self.tick()
            assert fault == Fault.NONE, fault.name


@pytest.fixture
def rig(arm, limits):
    return Rig(arm, limits)


def test_starts_without_a_jump_and_stands_still(rig):
    rig.tick()
    np.testing.assert_allclose(rig.out, 0.0, atol=1e-9)
    rig.run(200)
    assert np.abs(rig.arm.dq).max() < 1e-9


@pytest.mark.parametrize("preset", [free_space, insertion])
def test_arrives_at_a_target_without_overshoot(arm, limits, preset):
    rig = Rig(arm, limits, preset())
    start = rig.position.copy()
    translation, turn = np.array([0.03, -0.04, 0.05]), np.array([0.1, -0.1, 0.2])
    rig.goal_position, rig.goal_quaternion = compose_delta(rig.position, rig.quaternion, translation, turn)
    way = rig.goal_position - start
    furthest = 0.0
    for _ in range(1500):
        rig.run(1)
        furthest = max(furthest, (rig.position - start) @ way / (way @ way))
    assert 0.98 < furthest < 1.02
    assert np.linalg.norm(rig.position - rig.goal_position) < 1e-3
    assert np.linalg.norm(rotation_difference(rig.quaternion, rig.goal_quaternion)) < 1e-2


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_caps_rate_and_finiteness_hold_whatever_is_asked(make_arm, limits, seed):
    """Random setpoints, a tenth of the packets lost: the step is judged against the torque that the robot holds."""
    rng = np.random.default_rng(seed)
    rig = Rig(make_arm(), limits, msgspec.structs.replace(free_space(), **WIDE))
    for k in range(300):
        if k % 40 == 0:
            rig.goal_position = rig.position + rng.uniform(-0.5, 0.5, 3)
        held = rig.arm.tau.copy()
        rig.tick(lost=rng.random() < 0.1)
        assert np.all(np.abs(rig.out - held) <= 1.0 + 1e-12)
        assert np.all(np.abs(rig.out) <= 0.8 * limits.max_torque + 1e-12)
        assert np.all(np.isfinite(rig.out))


def test_the_step_is_counted_from_the_torque_that_the_robot_holds_after_lost_packets(arm, limits):
    stiff = msgspec.structs.replace(free_space(), stiffness=(5000.0,) * 3 + (50.0,) * 3, filter_s=0.0, **WIDE)
    rig = Rig(arm, limits, stiff)
    rig.goal_position = rig.position + np.array([0.0, 0.3, 0.3])
    steps = []
    for k in range(40):
        held = rig.arm.tau.copy()
        rig.tick(lost=k % 4 != 0)
        steps.append(np.abs(rig.out - held).max())
    assert max(steps) == pytest.approx(1.0, abs=1e-12)
    assert sum(step > 0.999 for step in steps) > 20


def test_torques_end_at_their_caps(rig, limits):
    """A spring of 5 kN against an arm held still asks for far more than any joint may give."""
    clips = {"clip_lower": (-1.0,) * 6, "clip_upper": (1.0,) * 6, "stiffness": (5000.0,) * 3 + (500.0,) * 3}
    config = msgspec.structs.replace(free_space(), passivity=False, filter_s=0.0, **clips, **WIDE)
    parameters, held = make_parameters(config, limits, DT), np.zeros(7)
    position, quaternion, jacobian, mass = rig.arm.measure()
    mass += 0.1 * np.eye(7)  # the rotors, without which such a spring shakes the wrist
    goal = compose_delta(position, quaternion, np.array([0.4, 0.4, 0.4]), np.array([1.0, 1.0, 1.0]))
    for _ in range(1200):
        measured = (position, quaternion, jacobian, mass, held)
        fault = tick(parameters, rig.state, rig.arm.q, np.zeros(7), *measured, *goal, 0.0, rig.out)
        assert fault == Fault.NONE
        held = rig.out.copy()
        assert np.all(np.abs(held) <= 0.8 * limits.max_torque)
    assert np.sum(np.abs(held) == 0.8 * limits.max_torque) >= 4


def test_the_wrench_against_a_held_arm_is_clip_times_stiffness(rig):
    """The arm is held still: the joint torque settles at J^T (K clip) and no more, 25 N here."""
    q, still = rig.arm.q.copy(), np.zeros(7)
    position, quaternion, jacobian, mass = rig.arm.measure()
    held = np.zeros(7)
    for _ in range(400):
        measured = (position, quaternion, jacobian, mass, held)
        goal = (position + np.array([0.0, 0.3, 0.0]), quaternion)
        tick(rig.parameters, rig.state, q, still, *measured, *goal, 0.0, rig.out)
        held = rig.out.copy()
    np.testing.assert_allclose(held, jacobian.T @ [0, 25.0, 0, 0, 0, 0], atol=1e-9)


def test_the_target_keeps_to_the_box(arm, limits):
    rig = Rig(arm, limits)
    rig.goal_position = np.array([0.4, 0.9, -0.5])
    for _ in range(1200):
        rig.run(1)
        assert np.all(rig.state.target_position >= rig.config.box_lower)
        assert np.all(rig.state.target_position <= rig.config.box_upper)
    np.testing.assert_allclose(rig.state.target_position, [0.4, 0.4, -0.05], atol=1e-4)


def test_a_target_reset_outside_the_box_comes_in_without_a_jump(arm, limits):
    config = msgspec.structs.replace(free_space(), box_lower=(0.4, -0.4, 0.0), box_margin=0.5)
    rig = Rig(arm, limits, config)
    before = rig.state.target_position.copy()
    rig.run(1)
    assert np.linalg.norm(rig.state.target_position - before) <= config.max_linear_speed * DT * (1 + 1e-12)
    rig.run(600)
    assert rig.state.target_position[0] == pytest.approx(0.4, abs=1e-4)


def test_a_stale_target_slows_down_and_holds_short_of_the_setpoint_then_faults(rig):
    rig.goal_position = rig.position + np.array([0.3, 0.0, 0.0])
    rig.run(60)
    speeds, targets = [rig.state.target_speed[0]], []
    assert speeds[0] == pytest.approx(1.0)
    rig.age = 0.1
    rig.run(1)
    assert rig.state.target_speed[0] == pytest.approx(1.0)  # at 100 ms still fresh
    for rig.age in np.arange(0.101, 0.4995, DT):
        rig.run(1)
        speeds.append(rig.state.target_speed[0])
        targets.append(rig.state.target_position[0])
    assert np.all(np.diff(speeds) >= -5.0 * DT - 1e-9)
    assert speeds[-1] == 0.0
    assert targets[-1] == targets[-100] < rig.goal_position[0]
    rig.age = 0.5
    assert rig.tick() == Fault.STALE_SETPOINT


def test_fresh_setpoints_end_a_hold_but_not_a_fault(rig):
    rig.goal_position = rig.position + np.array([0.1, 0.0, 0.0])
    rig.age = 0.3
    rig.run(50)
    np.testing.assert_array_equal(rig.state.target_speed, 0.0)
    rig.age = 0.0
    rig.run(1)
    assert rig.state.target_speed[0] > 0.5
    rig.age = 0.6
    assert rig.tick() == Fault.STALE_SETPOINT
    rig.age = 0.0
    for _ in range(50):
        assert rig.tick() == Fault.STALE_SETPOINT


MEASURED = ("q", "dq", "position", "quaternion", "jacobian", "mass", "tau_echoed")
ASKED = ("target_position", "target_quaternion")
NAN_CASES = [(name, Fault.INVALID_STATE) for name in MEASURED]
NAN_CASES += [(name, Fault.INVALID_SETPOINT) for name in ASKED]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "fault"), NAN_CASES)
def test_anything_not_finite_is_a_named_fault_and_the_torque_stays_finite(rig, name, fault, value):
    rig.goal_position = rig.position + np.array([0.1, 0.0, 0.0])
    rig.run(30)
    healthy = {
        "q": rig.arm.q, "dq": rig.arm.dq, "tau_echoed": rig.arm.tau,
        **dict(zip(("position", "quaternion", "jacobian", "mass"), rig.arm.measure(), strict=True)),
        "target_position": rig.goal_position, "target_quaternion": rig.goal_quaternion,
    }  # fmt: skip
    poisoned = healthy[name].copy()
    poisoned.flat[poisoned.size // 2] = value
    sent = rig.out.copy()
    assert rig.tick(**{name: poisoned}) == fault
    assert np.all(np.isfinite(rig.out))
    assert np.all(np.abs(rig.out - sent) <= 1.0 + 1e-12)
    for _ in range(200):
        assert rig.tick() == fault
    assert np.abs(rig.arm.dq).max() < 0.05  # braked
    recover(rig.state, rig.arm.q, *rig.arm.measure()[:2])
    rig.run(100)


@pytest.mark.parametrize("bad", [np.zeros(4), np.array([0.0, 0.0, 0.0, 1.1])])
def test_a_quaternion_that_is_no_rotation_is_an_invalid_setpoint(rig, bad):
    assert rig.tick(target_quaternion=bad) == Fault.INVALID_SETPOINT


def test_an_age_that_is_not_a_number_is_an_invalid_setpoint(rig):
    assert rig.tick(setpoint_age_s=np.nan) == Fault.INVALID_SETPOINT


def test_an_impossible_mass_matrix_is_an_invalid_state(rig):
    assert rig.tick(mass=-np.eye(7)) == Fault.INVALID_STATE


def test_a_state_that_was_never_reset_does_not_move_the_arm(rig):
    rig.state = make_state()
    assert rig.tick() == Fault.INVALID_TORQUE
    np.testing.assert_array_equal(rig.out, 0.0)


def test_gains_above_what_the_rate_keeps_stable_end_the_motion_before_they_make_a_torque(arm, limits):
    """By configuration, and by a policy that sets the stiffness: the filter leads it to the bound and no further."""
    stiff = msgspec.structs.replace(free_space(), stiffness=(1e6,) * 3 + (50.0,) * 3)
    rig = Rig(arm, limits, stiff)
    rig.goal_position = rig.position + np.array([0.01, 0.0, 0.0])
    assert rig.tick() == Fault.UNSTABLE_GAINS
    np.testing.assert_array_equal(rig.out, 0.0)
    rig = Rig(arm, limits)
    rig.state.wanted_share[:3] = 1e4
    for _ in range(200):
        fault = rig.tick()
        if fault:
            break
    _, _, jacobian, mass = rig.arm.measure()
    gain = loop_gain(rig.config.stiffness * rig.state.share, 1.0, jacobian, mass, 0.0, DT)
    assert fault == Fault.UNSTABLE_GAINS
    assert gain > STABLE_GAIN
    assert np.abs(rig.arm.dq).max() < 0.01


def test_a_joint_on_its_way_out_of_range_stops_the_arm(rig, limits):
    q = rig.arm.q.copy()
    q[3] = limits.lower[3] + 0.05
    dq = np.zeros(7)
    dq[3] = -0.2
    assert rig.tick(q=q, dq=dq) == Fault.JOINT_POSITION
    assert rig.out[3] > 0.0  # brakes


def test_a_joint_too_fast_stops_the_arm(rig, limits):
    dq = np.zeros(7)
    dq[5] = limits.max_velocity[5] + 0.1
    assert rig.tick(dq=dq) == Fault.JOINT_VELOCITY
    assert rig.out[5] < 0.0


def test_a_tool_on_its_way_out_of_the_box_stops_the_arm(rig):
    _, _, jacobian, _ = rig.arm.measure()
    dq = np.linalg.pinv(jacobian) @ [0.0, 0.2, 0.0, 0.0, 0.0, 0.0]
    outside = rig.position.copy()
    outside[1] = 0.46
    assert rig.tick(position=outside, dq=dq) == Fault.WORKSPACE


def test_recover_starts_from_where_the_arm_is_and_keeps_the_tank(rig):
    rig.goal_position = rig.position + np.array([0.1, 0.0, 0.0])
    rig.run(200)
    rig.age = 1.0
    for _ in range(300):
        rig.tick()
    spent = rig.state.tank_fraction[0]
    assert spent < 1.0
    position, quaternion, _, _ = rig.arm.measure()
    recover(rig.state, rig.arm.q, position, quaternion)
    np.testing.assert_array_equal(rig.state.target_position, position)
    assert rig.state.tank_fraction[0] == spent
    rig.age, rig.goal_position = 0.0, position
    rig.run(10)
    reset_state(rig.state, rig.arm.q, position, quaternion)
    assert rig.state.tank_fraction[0] == 1.0


def test_the_same_inputs_give_the_same_bits(make_arm, limits):
    histories = []
    for _ in range(2):
        rig = Rig(make_arm(), limits)
        rig.goal_position = rig.position + np.array([0.05, 0.1, -0.1])
        torques = []
        for _ in range(300):
            rig.tick()
            torques.append(rig.out.copy())
        histories.append(np.array(torques))
    np.testing.assert_array_equal(histories[0], histories[1])


def test_output_may_be_written_over_the_echo(make_arm, limits):
    """A loop may keep one array for both: what was sent is what is held."""
    apart, together = Rig(make_arm(), limits), Rig(make_arm(), limits)
    together.out = together.arm.tau
    for rig in (apart, together):
        rig.goal_position = rig.position + np.array([0.05, 0.1, -0.1])
    for _ in range(50):
        apart.tick()
        together.out = together.arm.tau
        together.tick()
    np.testing.assert_array_equal(apart.arm.q, together.arm.q)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"damping_ratio": 0.0}, "damping_ratio"),
        ({"stiffness": (-1.0, 1.0, 1.0, 1.0, 1.0, 1.0)}, "stiffness"),
        ({"clip_lower": (0.01,) * 6}, "clip_lower"),
        ({"box_lower": (2.0, 0.0, 0.0)}, "box_lower"),
        ({"setpoint_fault_s": 0.05}, "setpoint_fault_s"),
        ({"tank_min": 30.0}, "tank_min"),
        ({"filter_s": float("nan")}, "filter_s"),
        ({"posture": (float("inf"),) * 7}, "posture"),
        ({"joint_margin": 1.3}, "joint_margin"),
        ({"torque_fraction": 1.5}, "torque_fraction"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(limits, change, named):
    with pytest.raises(InvalidControlConfig, match=named):
        make_parameters(msgspec.structs.replace(ControlConfig(), **change), limits, DT)


def test_limits_and_tick_length_are_checked(limits):
    with pytest.raises(InvalidControlConfig, match="max_torque"):
        make_parameters(ControlConfig(), limits._replace(max_torque=np.ones(6)), DT)
    with pytest.raises(InvalidControlConfig, match="lower"):
        make_parameters(ControlConfig(), JointLimits(*[np.full(7, np.nan)] * 4), DT)
    with pytest.raises(InvalidControlConfig, match=r"0\.1 s"):
        make_parameters(ControlConfig(), limits, 0.1)


def test_a_misspelt_setting_is_an_error():
    with pytest.raises(TypeError, match="stifness"):
        ControlConfig(stifness=(1.0,) * 6)
    with pytest.raises(msgspec.ValidationError, match="stifness"):
        msgspec.convert({"stifness": [1.0] * 6}, ControlConfig)
