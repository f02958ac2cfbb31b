"""Settings that contradict each other are refused before anything starts."""

import pytest

from serl_suite.agents.rlpd import RLPDConfig
from serl_suite.nodes.config import ActorConfig, BadConfig, TrainConfig


def test_free_updates_need_a_robot_that_sets_the_pace():
    with pytest.raises(BadConfig, match=r"--actor\.pace realtime"):
        TrainConfig(task="T", agent=RLPDConfig(utd="free"))
    TrainConfig(task="T", agent=RLPDConfig(utd="free"), actor=ActorConfig(pace="realtime"))


def test_somebody_must_act():
    with pytest.raises(BadConfig, match="--actors"):
        TrainConfig(task="T", actors=0)
