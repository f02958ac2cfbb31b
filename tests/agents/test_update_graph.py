"""A CUDA graph of updates does what the updates one by one do."""

import msgspec
import numpy as np
import pytest
import torch

from serl_suite.agents.agent import BadAgent
from serl_suite.agents.rlpd import RLPD, RLPDConfig
from serl_suite.agents.update_graph import UpdateGraph
from serl_suite.data.replay import Replay, join
from serl_suite.networks.encoder_config import EncoderConfig
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SPEC = EnvSpec(
    task="Test",
    observation={"state": ArraySpec(shape=(5,), dtype="float32")},
    action=ArraySpec(shape=(2,), dtype="float32", low=-1.0, high=1.0),
)
IMAGE = ArraySpec(shape=(32, 32, 3), dtype="uint8")
PIXELS = msgspec.structs.replace(SPEC, observation={**SPEC.observation, "front": IMAGE, "wrist": IMAGE})
CONFIG = RLPDConfig(num_critics=4, hidden=(32, 32), batch_size=32, actor_period=4)
FROZEN = EncoderConfig(backbone="resnet10", weights="random", frozen=True, width=32)
LEARNS_FROM = {
    "states": (SPEC, CONFIG.encoder, 2e-2),
    "pictures": (PIXELS, EncoderConfig(width=32), 5e-2),
    "pictures through a frozen backbone": (PIXELS, FROZEN, 5e-2),
    "features": (PIXELS, msgspec.structs.replace(FROZEN, stored_shifts=3), 5e-2),
}
"""Spec, encoder, and by how much weights may differ: bfloat16 rounds to 1 in 256."""


def _replay(seed, device, spec=SPEC, features=None):
    replay = Replay(spec, 400, seed=seed, device=device, features=features)
    rng = np.random.default_rng(seed)
    for seq in range(300):
        index = seq % 20
        action = rng.uniform(-1, 1, 2).astype(np.float32) if index else None
        observation = {"state": rng.normal(size=5).astype(np.float32)}
        observation |= {key: rng.integers(0, 256, IMAGE.shape, np.uint8) for key in spec.image_keys}
        step = Step(seq=seq, episode=seq // 20, index=index, observation=observation, action=action)
        replay.insert("a", step)
    return replay


def test_the_host_has_no_graphs():
    agent = RLPD(CONFIG, SPEC, seed=0)
    with pytest.raises(BadAgent, match="CUDA device"):
        UpdateGraph(agent, [(_replay(0, "cpu"), 32)], 4)


@pytest.mark.gpu
@pytest.mark.parametrize("what", LEARNS_FROM)
def test_a_graph_learns_what_updates_one_by_one_learn(what):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    spec, encoder, tolerance = LEARNS_FROM[what]
    config = msgspec.structs.replace(CONFIG, encoder=encoder)
    plain, graphed = (RLPD(config, spec, seed=0, device="cuda") for _ in range(2))
    ours, theirs = (
        [_replay(seed, "cuda", spec, agent.kept_features()) for seed in (1, 2)] for agent in (plain, graphed)
    )
    graph = UpdateGraph(graphed, [(replay, 16) for replay in theirs], 8)
    for _ in range(3):
        metrics = graph.run()
        for _ in range(8):
            expected = plain.update(join([replay.sample(16) for replay in ours]))
    assert graphed.updates == plain.updates == 24
    for name in ("critic/loss", "critic/q", "critic/target"):
        assert metrics[name].item() == pytest.approx(expected[name].item(), rel=tolerance, abs=1e-3)
    for name, tensor in plain.state_dict().items():
        ours, theirs = graphed.state_dict()[name].double(), tensor.double()
        if "optimiser" not in name:
            assert (ours - theirs).norm() <= tolerance * theirs.norm() + 2e-3, name


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
