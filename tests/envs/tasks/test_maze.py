"""The maze: what its energy account says, what the tank does to greedy policies, and that walls are walls."""

import gymnasium
import numpy as np
import pytest
from serl_envs.tasks.maze import HALF_M, Maze


def greedy(seed):
    """Full motion in random directions at the greatest stiffness."""
    rng = np.random.default_rng(seed)
    return lambda: np.array([*rng.choice([-1.0, 1.0], 4), 1.0, 1.0, 1.0], np.float32)


def walk(env, episodes, act):
    """Runs episodes of at most 80 steps; yields action, observation, info and the twin's account of each step."""
    for episode in range(episodes):
        env.reset(seed=episode)
        over = False
        while not over:
            action = act()
            observation, _, terminated, truncated, info = env.step(action)
            yield action, observation, info, env.unwrapped.robot.energy
            over = terminated or truncated


def test_the_tank_keeps_a_greedy_policy_from_every_violation():
    counts = {}
    for passivity in (True, False):
        env = gymnasium.make("FrankaMaze-v0", passivity=passivity)
        steps = [(info["cost"], energy.least_fraction) for *_, info, energy in walk(env, 4, greedy(0))]
        counts[passivity] = sum(cost for cost, _ in steps)
        if passivity:
            assert min(least for _, least in steps) * Maze.tank_max_j >= Maze.tank_min_j
    assert counts[True] == 0
    assert counts[False] > 200


def test_cost_says_what_the_account_says():
    rng = np.random.default_rng(1)
    env = gymnasium.make("FrankaMaze-v0", passivity=False)
    seen = set()
    for _, observation, info, energy in walk(env, 2, lambda: rng.uniform(-1, 1, 7).astype(np.float32)):
        dry = energy.least_fraction * Maze.tank_max_j < Maze.tank_min_j
        assert info["cost"] == float(dry or energy.peak_power_w > Maze.max_power_w)
        assert observation["tank"] == pytest.approx(np.clip(energy.fraction, -1, 1), abs=1e-6)
        seen.add(info["cost"])
    assert seen == {0.0, 1.0}


def test_the_tank_falls_by_the_work_of_each_step():
    env = gymnasium.make("FrankaMaze-v0")
    env.reset(seed=3)
    action = np.array([0.3, 0.2, 0.0, 0.0, 0.5, 0.5, 0.5], np.float32)
    env.step(action)  # from here on the tank is not full, where it takes no more
    level = env.unwrapped.robot.energy.fraction * Maze.tank_max_j
    for _ in range(10):
        level -= env.step(action)[-1]["work_j"]
        assert env.unwrapped.robot.energy.fraction * Maze.tank_max_j == pytest.approx(level, abs=1e-9)
    assert level < 0.99


def test_the_stiffness_asked_for_is_in_force_within_the_step():
    env = gymnasium.make("FrankaMaze-v0")
    env.reset(seed=0)
    observation = env.step(np.array([0, 0, 0, 0, 1.0, -1.0, 0.0], np.float32))[0]
    np.testing.assert_allclose(observation["stiffness"], [1.0, 0.1, 0.1**0.5], rtol=0.02)


def test_what_was_executed_is_the_action_on_a_full_tank():
    env = gymnasium.make("FrankaMaze-v0")
    env.reset(seed=1)
    action = np.array([0.2, -0.1, 0.0, 0.05, 0.5, 0.2, -0.4], np.float32)
    for _ in range(5):
        executed = env.step(action)[-1]["executed_action"]
        np.testing.assert_allclose(executed, action, atol=0.01)


def test_what_was_executed_is_less_than_the_action_on_an_empty_tank():
    env = gymnasium.make("FrankaMaze-v0")
    short = []
    for action, _, info, energy in walk(env, 4, greedy(2)):
        executed = info["executed_action"]
        assert executed.dtype == np.float32
        assert env.action_space.contains(executed)
        if energy.fraction * Maze.tank_max_j < 0.2:
            short.append(np.abs(executed[:3]).min() < 0.9 * np.abs(action[:3]).min())
    assert len(short) > 20
    assert np.mean(short) > 0.95


def test_filter_or_not_is_the_same_to_the_bit_while_the_tank_is_ample():
    observations = []
    for passivity in (True, False):
        env = gymnasium.make("FrankaMaze-v0", passivity=passivity)
        expert = env.unwrapped.make_expert(noise=0.0, seed=0)
        observation, _ = env.reset(seed=4)
        expert.reset()
        seen = [observation]
        for _ in range(25):
            observation = env.step(expert.act())[0]
            seen.append(observation)
        observations.append(seen)
    for ours, theirs in zip(*observations, strict=True):
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key])


def test_no_policy_leads_the_peg_through_or_over_a_wall():
    env = gymnasium.make("FrankaMaze-v0", passivity=False)
    for _, observation, _, _ in walk(env, 3, greedy(5)):
        assert np.abs(observation["maze"][:2]).max() < HALF_M
