"""Kinematics, trajectories and gains against independent computations."""

import itertools

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serl_hardware.franka import fr3
from serl_hardware.franka.model import TCP_SITE, add_franka
from serl_servers.franka import trajectories
from serl_servers.franka.kinematics import Tool

from serl_suite.control.rotations import quaternion_from_matrix, rotation_difference
from serl_suite.control.stability import LOOP_GAIN_MAX, loop_gain

ARM = fr3()


@pytest.fixture(scope="module")
def model():
    spec = mujoco.MjSpec()
    add_franka(spec)
    return spec.compile()


def tcp(model, q):
    data = mujoco.MjData(model)
    data.qpos[:7] = q
    mujoco.mj_forward(model, data)
    return data.site(TCP_SITE).xpos.copy(), quaternion_from_matrix(
        data.site(TCP_SITE).xmat.reshape(3, 3).copy()
    )


def joint_positions(rng, count):
    return rng.uniform(ARM.q_min, ARM.q_max, (count, 7))


def test_the_tool_found_at_one_pose_is_right_at_all(model):
    rng = np.random.default_rng(0)
    first, *others = joint_positions(rng, 100)
    tool = Tool(first, *tcp(model, first))
    for q in others:
        position, quaternion = tcp(model, q)
        found, turn = tool.pose(q)
        assert np.abs(found - position).max() < 1e-9
        assert np.abs(rotation_difference(turn, quaternion)).max() < 1e-9


@pytest.mark.parametrize("planner", ["_Ruckig", "_MinimumJerk"])
def test_joint_paths_arrive_within_their_limits(planner):
    if planner == "_Ruckig":
        pytest.importorskip("ruckig")
    rng = np.random.default_rng(1)
    dt = 1e-3
    for start, end in zip(joint_positions(rng, 10), joint_positions(rng, 10), strict=True):
        path = getattr(trajectories, planner)(start, end)
        times = np.arange(0.0, path.duration_s + 2 * dt, dt)
        q = np.array([path.at(t) for t in times])
        speed = np.diff(q, axis=0) / dt
        assert np.abs(q[0] - start).max() < 1e-9
        assert np.abs(q[-1] - end).max() < 1e-6
        assert (np.abs(speed) <= trajectories.JOINT_SPEED_FRACTION * ARM.max_velocity * 1.001).all()
        assert np.abs(np.diff(speed, axis=0) / dt).max() <= trajectories.JOINT_ACCELERATION * 1.02


unit = st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=4).filter(lambda v: np.linalg.norm(v) > 0.1)
place = st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3)


@settings(max_examples=30, deadline=None)
@given(place, unit, place, unit)
def test_pose_segments_are_straight_slow_and_complete(p0, q0, p1, q1):
    start = np.array(p0), np.array(q0) / np.linalg.norm(q0)
    end = np.array(p1), np.array(q1) / np.linalg.norm(q1)
    segment = trajectories.PoseSegment(start, end)
    steps = 200
    poses = [segment.at(segment.duration_s * i / steps) for i in range(steps + 1)]
    dt = segment.duration_s / steps
    assert np.abs(poses[-1][0] - end[0]).max() < 1e-9
    assert np.abs(rotation_difference(poses[-1][1], end[1])).max() < 1e-6
    turned = 0.0
    for (a, qa), (b, qb) in itertools.pairwise(poses):
        assert np.linalg.norm(b - a) <= trajectories.LINEAR_SPEED * dt * 1.001 + 1e-12
        angle = float(np.linalg.norm(rotation_difference(qb, qa)))
        assert angle <= trajectories.ANGULAR_SPEED * dt * 1.001 + 1e-9
        turned += angle
    # the sum of the turns is the whole turn: one axis, the shorter way
    assert turned == pytest.approx(np.linalg.norm(rotation_difference(end[1], start[1])), abs=1e-6)


def oscillates(stiffness, mass, ratio, dt):
    """Whether a mass on spring and damper diverges when its force acts with one tick of delay."""
    x, v, force = 1.0, 0.0, 0.0
    for _ in range(20_000):
        measured = -stiffness * x - 2.0 * ratio * np.sqrt(stiffness * mass) * v
        v += force / mass * dt
        x += v * dt
        force = measured
        if abs(x) > 10.0:
            return True
    return abs(x) + abs(v) * dt > 0.5


@given(st.floats(0.05, 20.0), st.floats(0.3, 1.5), st.floats(0.05, 4.0))
@settings(max_examples=60, deadline=None)
def test_gains_within_the_bound_are_stable_and_those_far_above_are_not(mass, ratio, gain):
    """Of a unit arm: six of its joints are the axes, each with this mass."""
    dt = 1e-3
    # the stiffness that has this loop gain: g = w dt (2 z + 1 / (2 z))
    rate = gain / (2.0 * ratio + 0.5 / ratio) / dt
    stiffness = mass * rate * rate
    jacobian = np.eye(6, 7)
    assert loop_gain(np.full(6, stiffness), ratio, jacobian, mass * np.eye(7), 0.0, dt) == pytest.approx(gain)
    if gain <= LOOP_GAIN_MAX:
        assert not oscillates(stiffness, mass, ratio, dt)
    elif gain > 2.5:
        assert oscillates(stiffness, mass, ratio, dt)
