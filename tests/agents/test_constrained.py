"""The constrained agents on problems whose answer is known, and the promises around their state."""

import numpy as np
import pytest
import torch

from serl_suite.agents.errors import BadAgent
from serl_suite.agents.lagrangian import LagrangianConfig, LagrangianRLPD
from serl_suite.agents.recovery import RecoveryConfig, RecoveryRLPD, risk_batch
from serl_suite.data.replay import Batch, Replay
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SPEC = EnvSpec(
    task="made up",
    observation={"s": ArraySpec(shape=(1,), dtype="float32")},
    action=ArraySpec(shape=(1,), dtype="float32", low=-1.0, high=1.0),
)
SMALL = {"hidden": (32, 32), "num_critics": 2, "batch_size": 128, "actor_period": 2, "learning_rate": 3e-3}
LIMIT = 0.2


def one_step_episodes(seed, size=128):
    """A full action is worth most, and what of it is positive costs: r = a, c = max(0, a), then it is over."""
    g = torch.Generator().manual_seed(seed)
    action = torch.rand(size, 1, generator=g) * 2 - 1
    state = torch.zeros(size, 1)
    return Batch(
        state=state, images={}, action=action, reward=action[:, 0], mask=torch.zeros(size), next_state=state,
        next_images={}, cost=action[:, 0].clamp_min(0.0),
    )  # fmt: skip


def at_rest():
    return {"s": np.zeros(1, np.float32)}


def test_the_multiplier_holds_the_policy_at_the_limit():
    taken = {}
    for limit in (LIMIT, 10.0):
        config = LagrangianConfig(**SMALL, cost_limit=limit, initial_multiplier=1.0, multiplier_pace=1.0)
        agent = LagrangianRLPD(config, SPEC, seed=0)
        for k in range(1500):
            metrics = agent.update(one_step_episodes(k))
        draws = np.array([agent.act(at_rest(), explore=True)[0] for _ in range(200)])
        taken[limit] = np.maximum(draws, 0.0).mean()
    assert {"cost/loss", "cost/q", "actor/cost", "actor/multiplier"} < metrics.keys()
    assert taken[10.0] > 0.6
    assert taken[LIMIT] == pytest.approx(LIMIT, abs=0.1)


def risky(seed, size=128):
    """Nothing is worth anything; an action above 0 violates. Episodes go on."""
    batch = one_step_episodes(seed, size)
    return batch._replace(cost=(batch.action[:, 0] > 0.0).float(), mask=torch.ones(size))


def test_the_recovery_policy_takes_over_where_it_would_violate_and_only_there():
    agent = RecoveryRLPD(RecoveryConfig(**SMALL), SPEC, seed=0)
    for k in range(600):
        agent.update(one_step_episodes(k))  # the task wants a = 1
        agent.update_risk(risky(k))
    assert agent.act(at_rest(), explore=False)[0] < 0.0
    assert agent.recoveries == 1
    safe = RecoveryRLPD(RecoveryConfig(**SMALL), SPEC, seed=0)
    for k in range(600):
        batch = one_step_episodes(k)
        safe.update(batch._replace(reward=-batch.reward))  # the task wants a = -1
        safe.update_risk(risky(k))
    assert safe.act(at_rest(), explore=False)[0] < -0.5
    assert safe.recoveries == 0


def test_risk_is_the_discounted_chance_of_a_violation():
    """Every step violates, for ever: 1 + 0.5 + 0.25 + ... = 2; none does: 0."""
    for cost, expected in ((1.0, 2.0), (0.0, 0.0)):
        agent = RecoveryRLPD(RecoveryConfig(**SMALL, tau=0.05), SPEC, seed=1)
        for k in range(800):
            batch = risky(k)
            metrics = agent.update_risk(batch._replace(cost=torch.full_like(batch.reward, cost)))
        assert float(metrics["risk/q"]) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("kind", ["lagrangian", "recovery"])
def test_updates_go_on_from_a_state_to_the_bit(kind):
    def make(seed):
        if kind == "lagrangian":
            return LagrangianRLPD(LagrangianConfig(**SMALL), SPEC, seed=seed)
        return RecoveryRLPD(RecoveryConfig(**SMALL), SPEC, seed=seed)

    def update(agent, k):
        agent.update(one_step_episodes(k))
        if kind == "recovery":
            agent.update_risk(risky(k))

    first = make(0)
    for k in range(5):
        update(first, k)
    second = make(1)
    second.load_state_dict(first.state_dict())
    for agent in (first, second):
        for k in range(5, 10):
            update(agent, k)
    theirs = second.state_dict()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_state_of_the_other_agent_is_refused():
    one = LagrangianRLPD(LagrangianConfig(**SMALL), SPEC, seed=0)
    other = RecoveryRLPD(RecoveryConfig(**SMALL), SPEC, seed=0)
    with pytest.raises(BadAgent, match="does not fit"):
        one.load_state_dict(other.state_dict())


def test_batches_without_costs_are_refused():
    batch = one_step_episodes(0)._replace(cost=None)
    with pytest.raises(BadAgent, match="costs=True"):
        LagrangianRLPD(LagrangianConfig(**SMALL), SPEC, seed=0).update(batch)
    with pytest.raises(BadAgent, match="costs=True"):
        RecoveryRLPD(RecoveryConfig(**SMALL), SPEC, seed=0).update_risk(batch)


def test_a_third_of_the_risk_batch_violates():
    everything, violating = (Replay(SPEC, 500, seed=s, costs=True) for s in (0, 1))
    previous = None
    for index in range(200):
        cost = float(index % 50 == 7)
        step = Step(
            seq=index, episode=0, index=index, observation=at_rest(),
            action=np.zeros(1, np.float32) if index else None, cost=cost,
        )  # fmt: skip
        everything.insert("s", step)
        if cost:
            violating.insert("s", step, previous=previous)
        previous = step
    config = RecoveryConfig(**SMALL)
    batch = risk_batch(config, everything, violating)
    share = float((batch.cost > 0).float().mean())
    assert 0.3 <= share < 0.4
    assert len(violating) == 4


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (LagrangianConfig, {"cost_limit": -0.1}),
        (LagrangianConfig, {"multiplier_pace": 0.0}),
        (LagrangianConfig, {"batch_size": 0}),
        (RecoveryConfig, {"risk_discount": 1.0}),
        (RecoveryConfig, {"violating_fraction": 1.5}),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, change):
    with pytest.raises(BadAgent):
        kind(**change)
