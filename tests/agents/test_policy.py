"""The actor's half: built from the welcome's description, it acts as the learner's agent does."""

import msgspec
import numpy as np
import pytest

from serl_suite.agents.errors import BadAgent
from serl_suite.agents.policy import Policy
from serl_suite.agents.registry import describe, make_agent, make_policy
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SPEC = EnvSpec(
    task="made up",
    observation={
        "b": ArraySpec(shape=(2, 2), dtype="float64"),
        "a": ArraySpec(shape=(3,), dtype="float32"),
    },
    action=ArraySpec(shape=(2,), dtype="float32", low=-5.0, high=5.0),
)
CONFIG = RLPDConfig(hidden=(24, 24))


def observations(count, seed=0):
    rng = np.random.default_rng(seed)
    return [{"a": rng.normal(size=3).astype(np.float32), "b": rng.normal(size=(2, 2))} for _ in range(count)]


def test_the_described_policy_acts_as_the_agent():
    agent = make_agent("rlpd", CONFIG, SPEC, seed=0)
    agent.fit_normaliser(np.random.default_rng(0).normal(1.0, 2.0, (50, 7)).astype(np.float32))
    over_the_wire = msgspec.msgpack.decode(msgspec.msgpack.encode(describe("rlpd", CONFIG)))
    policy = make_policy(over_the_wire, SPEC, seed=5)
    policy.load(agent.policy_state())
    for observation in observations(10):
        action = policy.act(observation, explore=False)
        assert action.dtype == np.float32
        assert action.shape == (2,)
        assert (action == agent.act(observation, explore=False)).all()
        assert (np.abs(policy.act(observation, explore=True)) <= 1.0).all()


def test_exploration_follows_the_seed_and_spreads():
    one, two, other = (Policy(CONFIG, SPEC, seed=seed) for seed in (1, 1, 2))
    weights = one._network.trained_state()
    for policy in (two, other):
        policy.load({name: tensor.numpy() for name, tensor in weights.items()})
    (observation,) = observations(1)
    draws = [[policy.act(observation, explore=True) for _ in range(200)] for policy in (one, two, other)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert np.std(draws[0], axis=0).min() > 0.3, "the first actions reach over the whole range"


def test_weights_sent_as_float16_are_taken():
    agent, policy = make_agent("rlpd", CONFIG, SPEC, seed=0), Policy(CONFIG, SPEC, seed=1)
    policy.load({name: array.astype(np.float16) for name, array in agent.policy_state().items()})
    for observation in observations(5):
        assert np.allclose(policy.act(observation, False), agent.act(observation, False), atol=5e-3)


def test_the_policy_carries_no_critic():
    agent = make_agent("rlpd", CONFIG, SPEC, seed=0)
    inputs, outputs = (7 * 24 + 24 * 3) + (24 * 24 + 24 * 3), 24 * 4 + 4
    assert sum(array.size for array in agent.policy_state().values()) == inputs + outputs + 2 * 7


def test_other_weights_are_refused_and_leave_the_policy_as_it_was():
    policy = Policy(CONFIG, SPEC, seed=0)
    (observation,) = observations(1)
    before = policy.act(observation, False)
    wider = make_agent("rlpd", RLPDConfig(hidden=(24, 25)), SPEC, seed=0).policy_state()
    for arrays in (wider, {}, {**wider, "extra": np.zeros(1, np.float32)}):
        with pytest.raises(BadAgent, match="same version, task and agent settings"):
            policy.load(arrays)
    assert (policy.act(observation, False) == before).all()


def test_an_agent_nobody_knows_is_named():
    with pytest.raises(BadAgent, match=r"'rlpdd'; choose one of rlpd"):
        make_agent("rlpdd", CONFIG, SPEC, seed=0)
    with pytest.raises(BadAgent, match="same version"):
        make_policy({"name": "rlpd", "config": {"num_critcs": 2}}, SPEC, seed=0)
    with pytest.raises(BadAgent, match="choose one of"):
        make_policy({"name": "sac", "config": {}}, SPEC, seed=0)
