"""Replays that would not fit are refused before a byte of them is reserved."""

import re

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serl_suite.data.replay import Replay
from serl_suite.nodes.config import LearnerConfig, TrainConfig
from serl_suite.nodes.experience import Experience, ReplayTooLarge, check_memory, frame_bytes
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec


def make_spec(cameras=0, size=8, state=3, actions=2):
    images = {f"camera{k}": ArraySpec(shape=(size, size, 3), dtype="uint8") for k in range(cameras)}
    return EnvSpec(
        task="T",
        observation={"state": ArraySpec(shape=(state,), dtype="float64"), **images},
        action=ArraySpec(shape=(actions,), dtype="float32", low=-1.0, high=1.0),
    )


@given(st.integers(0, 3), st.integers(1, 20), st.integers(1, 50), st.integers(1, 9))
def test_a_frame_is_as_large_as_a_replay_makes_it(cameras, size, state, actions):
    spec = make_spec(cameras, size, state, actions)
    assert frame_bytes(spec) * 7 == Replay(spec, 7, seed=0).nbytes


def test_terabytes_are_refused_and_the_capacity_that_is_named_would_fit():
    config = TrainConfig(task="T", max_steps=1_000_000)
    spec = make_spec(cameras=64, size=4096)
    with pytest.raises(ReplayTooLarge, match="fewer or smaller images") as refusal:
        Experience(spec, config, demonstrated=0)
    fitting = int(re.search(r"--learner\.replay-capacity (\d+)", str(refusal.value))[1])
    fits, does_not = (
        msgspec.structs.replace(config, learner=LearnerConfig(replay_capacity=fitting + more))
        for more in (0, 1)
    )
    check_memory(spec, fits)
    with pytest.raises(ReplayTooLarge):
        check_memory(spec, does_not)


def test_the_default_capacity_is_fine_for_states():
    check_memory(make_spec(state=200), TrainConfig(task="T", max_steps=1_000_000))


def test_no_more_is_reserved_than_a_run_can_fill():
    """Two frames a transition at most, however large the capacity."""
    config = TrainConfig(task="T", max_steps=50)
    experience = Experience(make_spec(), config, demonstrated=0)
    for seq in range(100):
        step = Step(
            seq=seq, episode=seq // 2, index=seq % 2, observation={"state": np.full(3, seq, np.float64)},
            action=np.zeros(2, np.float32) if seq % 2 else None, truncated=seq % 2 == 1,
        )  # fmt: skip
        experience.insert("a", step)
    assert len(experience.online) == 50
    assert experience.online.capacity < 200
