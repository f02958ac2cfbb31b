"""A CUDA graph of updates does what the updates one by one do."""

import msgspec
import numpy as np
import pytest
import torch

from serl_suite.agents.agent import BadAgent
from serl_suite.agents.block_inputs import each
from serl_suite.agents.rlpd import RLPD, RLPDConfig
from serl_suite.agents.update_graph import UpdateGraph
from serl_suite.data.mixing import join
from serl_suite.data.replay import Replay
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
CONFIG = RLPDConfig(num_critics=4, hidden=(32, 32), batch_size=32, actor_period=4, learning_rate=3e-4)
FROZEN = EncoderConfig(backbone="resnet10", weights="random", frozen=True, width=32)
KEPT = msgspec.structs.replace(FROZEN, stored_shifts=3)
LEARNS_FROM = {
    "states": (SPEC, CONFIG.encoder, 3, "cuda"),
    "pictures": (PIXELS, EncoderConfig(width=32), 1, "cuda"),
    "pictures through a frozen backbone": (PIXELS, FROZEN, 1, "cuda"),
    "features": (PIXELS, KEPT, 1, "cuda"),
    "states in host memory": (SPEC, CONFIG.encoder, 3, "cpu"),
    "pictures in host memory": (PIXELS, EncoderConfig(width=32), 1, "cpu"),
    "features in host memory": (PIXELS, KEPT, 1, "cpu"),
}
"""Spec, encoder, blocks of 8 updates after which both are compared (what bfloat16 rounds grows with each), and where
the replays are."""


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
    spec, encoder, blocks, where = LEARNS_FROM[what]
    config = msgspec.structs.replace(CONFIG, encoder=encoder)
    plain, graphed = (RLPD(config, spec, seed=0, device="cuda") for _ in range(2))
    ours, theirs = (
        [_replay(seed, where, spec, agent.kept_features()) for seed in (1, 2)] for agent in (plain, graphed)
    )
    start = plain.state_dict()
    graph = UpdateGraph(graphed, [(replay, 16) for replay in theirs], 8)
    for _ in range(blocks):
        metrics = graph.run()
        for _ in range(8):
            batch = join([replay.sample(16) for replay in ours])
            expected = plain.update(each(lambda x: x.to("cuda"), batch))
    graph.settle()
    assert graphed.updates == plain.updates == 8 * blocks
    for name in ("critic/loss", "critic/q", "critic/target"):
        assert metrics[name].item() == pytest.approx(expected[name].item(), rel=3e-2, abs=3e-3)
    one, two = plain.state_dict(), graphed.state_dict()
    way, apart = (
        sum((a[name].double() - b[name].double()).square().sum() for name in one if "optimiser" not in name)
        for a, b in ((one, start), (two, one))
    )
    assert apart.sqrt() < 0.1 * way.sqrt(), "both went the same way"


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
