"""The scripted experts succeed as they promise, at a teleoperator's pace, with noise that is what it says."""

import gymnasium
import numpy as np
import pytest
import serl_envs

EPISODES = 40


def _run(env, expert, episodes):
    lengths, successes = [], 0
    for episode in range(episodes):
        observation, _ = env.reset(seed=100 + episode)
        expert.reset()
        steps, over = 0, False
        while not over:
            observation, _, terminated, truncated, _ = env.step(expert.act(observation))
            steps, over = steps + 1, terminated or truncated
        successes += terminated
        lengths.append(steps)
    return successes, lengths


@pytest.mark.parametrize("task_id", sorted(serl_envs.TASKS))
def test_success_at_benchmark_noise(task_id):
    env = gymnasium.make(task_id)
    successes, _ = _run(env, env.unwrapped.make_expert(noise=0.2, seed=0), EPISODES)
    assert successes >= 0.95 * EPISODES


def test_pick_cube_is_shown_at_a_deliberate_pace():
    env = gymnasium.make("FrankaPickCube-v0")
    _, lengths = _run(env, env.unwrapped.make_expert(noise=0.0, seed=0), 10)
    assert 25 <= np.mean(lengths) <= 36


def test_noise_has_the_asked_for_size_and_spares_the_gripper():
    env = gymnasium.make("FrankaReach-v0").unwrapped
    env.reset(seed=0)
    clean, noisy = env.make_expert(noise=0.0, seed=1), env.make_expert(noise=0.2, seed=1)
    differences = np.array([noisy.act(None) - clean.act(None) for _ in range(4000)])
    # clipping at the action's bounds takes a little off
    assert differences[:, :6].std() == pytest.approx(0.2, rel=0.1)
    assert np.abs(differences[:, 6]).max() == 0.0
    pairs = differences[:-1, 0], differences[1:, 0]
    assert np.corrcoef(*pairs)[0, 1] == pytest.approx(0.5, abs=0.1)


def test_same_seed_same_demonstration():
    env = gymnasium.make("FrankaPickCube-v0").unwrapped

    def actions():
        expert = env.make_expert(noise=0.2, seed=4)
        env.reset(seed=4)
        expert.reset()
        taken = []
        for _ in range(20):
            taken.append(expert.act(None))
            env.step(taken[-1])
        return np.array(taken)

    assert np.array_equal(actions(), actions())
