"""A CUDA graph of updates does what the updates one by one do."""

import numpy as np
import pytest
import torch

from serl_suite.agents.agent import BadAgent
from serl_suite.agents.rlpd import RLPD, RLPDConfig
from serl_suite.agents.update_graph import UpdateGraph
from serl_suite.data.replay import Replay, join
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SPEC = EnvSpec(
    task="Test",
    observation={"state": ArraySpec(shape=(5,), dtype="float32")},
    action=ArraySpec(shape=(2,), dtype="float32", low=-1.0, high=1.0),
)
CONFIG = RLPDConfig(num_critics=4, hidden=(32, 32), batch_size=32, actor_period=4)


def _replay(seed, device):
    replay, rng = Replay(SPEC, 400, seed=seed, device=device), np.random.default_rng(seed)
    for seq in range(300):
        index = seq % 20
        action = rng.uniform(-1, 1, 2).astype(np.float32) if index else None
        observation = {"state": rng.normal(size=5).astype(np.float32)}
        step = Step(seq=seq, episode=seq // 20, index=index, observation=observation, action=action)
        replay.insert("a", step)
    return replay


def test_the_host_has_no_graphs():
    agent = RLPD(CONFIG, SPEC, seed=0)
    with pytest.raises(BadAgent, match="CUDA device"):
        UpdateGraph(agent, [(_replay(0, "cpu"), 32)], 4)


@pytest.mark.gpu
def test_a_graph_learns_what_updates_one_by_one_learn():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    plain, graphed = (RLPD(CONFIG, SPEC, seed=0, device="cuda") for _ in range(2))
    ours, theirs = ([_replay(seed, "cuda") for seed in (1, 2)] for _ in range(2))
    graph = UpdateGraph(graphed, [(replay, 16) for replay in theirs], 8)
    for _ in range(3):
        metrics = graph.run()
        for _ in range(8):
            expected = plain.update(join([replay.sample(16) for replay in ours]))
    assert graphed.updates == plain.updates == 24
    for name in ("critic/loss", "critic/q", "critic/target"):
        assert metrics[name].item() == pytest.approx(expected[name].item(), rel=1e-3, abs=1e-4)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(graphed.state_dict()[name].double(), tensor.double(), rtol=2e-2, atol=2e-3)


@pytest.mark.gpu
def test_a_capture_leaves_the_agent_as_it_was():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    agent = RLPD(CONFIG, SPEC, seed=0, device="cuda")
    before = agent.state_dict()
    UpdateGraph(agent, [(_replay(1, "cuda"), 32)], 4)
    assert all(torch.equal(before[name], tensor) for name, tensor in agent.state_dict().items())


@pytest.mark.gpu
def test_a_block_that_does_not_repeat_is_refused():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    agent = RLPD(CONFIG, SPEC, seed=0, device="cuda")
    with pytest.raises(BadAgent, match="does not repeat"):
        UpdateGraph(agent, [(_replay(1, "cuda"), 32)], 6)
