"""Who judges success in an environment's place: a person at a terminal, here a real pseudo-terminal."""

import os
import pty
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "integration"))

from serl_suite.nodes.environment import Environment
from serl_suite.rewards.config import BadClassifier


@pytest.fixture
def judged():
    master, slave = pty.openpty()
    environment = Environment("point_env:Point-v0", reward=f"key:{os.ttyname(slave)}")
    yield environment, lambda keys: os.write(master, keys)
    environment.close()
    os.close(master), os.close(slave)


def towards(observation):
    return -np.sign(observation["x"]).astype(np.float32)


def test_a_person_ends_an_episode_as_a_success(judged):
    environment, press = judged
    environment.reset(seed=0)
    press(b"s")
    _, reward, terminated, truncated, success = environment.step(np.zeros(1, np.float32))
    assert (reward, terminated, truncated, success) == (1.0, True, False, True)
    assert environment.truth is False, "what the simulation knows is told beside it"


def test_a_person_ends_an_episode_as_a_failure(judged):
    environment, press = judged
    environment.reset(seed=0)
    press(b"f")
    _, reward, terminated, _, success = environment.step(np.zeros(1, np.float32))
    assert (reward, terminated, success) == (0.0, True, False)


def test_what_only_the_simulation_knows_ends_nothing(judged):
    """The point reaches the origin, and nobody presses a key: the episode goes on to its end."""
    environment, press = judged
    press(b"s")  # before the episode: it does not count
    observation, steps, truths = environment.reset(seed=0), 0, []
    terminated = truncated = False
    while not (terminated or truncated) and steps < 30:
        observation, reward, terminated, truncated, success = environment.step(towards(observation))
        assert (reward, terminated, success) == (0.0, False, False)
        steps, truths = steps + 1, [*truths, environment.truth]
        if any(truths):
            break
    assert any(truths)


def test_an_unknown_judge_is_refused():
    with pytest.raises(BadClassifier, match="classifier:MODEL, or key"):
        Environment("point_env:Point-v0", reward="clasifier:x")
