"""The task that resets itself: forward and backward alternate, and seeding starts afresh."""

import gymnasium
import numpy as np
import pytest


@pytest.fixture
def env():
    env = gymnasium.make("FrankaBinRelocate-v0").unwrapped
    yield env
    env.close()


def _cube(env):
    return env.robot.scene.pose("cube")[0]


def _run_expert(env, expert):
    expert.reset()
    over = False
    while not over:
        _, _, terminated, truncated, _ = env.step(expert.act())
        over = terminated or truncated
    return terminated


def test_the_next_episode_starts_where_the_one_before_ended(env):
    expert = env.make_expert(noise=0.0, seed=0)
    env.reset(seed=3)
    for _ in range(4):
        goal = env.task.goal.copy()
        assert _cube(env)[1] * goal[1] < 0
        assert _run_expert(env, expert)
        left = _cube(env)
        env.reset()
        assert _cube(env) == pytest.approx(left, abs=1e-6)
        assert env.task.goal[1] == -goal[1]


def test_a_cube_out_of_reach_is_put_into_a_bin_anew(env):
    env.reset(seed=3)
    env.robot.scene.place("cube", np.array([0.5, 0.5, 0.02]), np.array([0.0, 0.0, 0.0, 1.0]))
    env.reset()
    assert abs(_cube(env)[1]) < 0.15
    assert _cube(env)[1] * env.task.goal[1] < 0


def test_a_seed_forgets_what_was_before(env):
    first, _ = env.reset(seed=3)
    _run_expert(env, env.make_expert(noise=0.0, seed=0))
    env.reset()
    again, _ = env.reset(seed=3)
    assert all(np.array_equal(first[key], again[key]) for key in first)


def test_a_cube_that_is_still_held_is_not_there_yet(env):
    expert = env.make_expert(noise=0.0, seed=0)
    env.reset(seed=3)
    expert.reset()
    over_goal = 0
    terminated = False
    while not terminated:
        _, _, terminated, truncated, _ = env.step(expert.act())
        assert not truncated
        over_goal += not terminated and _cube(env)[1] * env.task.goal[1] > 0
    assert over_goal >= 3
    assert not env.robot.scene.held("cube")
