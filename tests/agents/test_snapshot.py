"""What is taken to the host is what was there at that moment, and nobody waits for the device."""

import time

import numpy as np
import pytest
import torch

from serl_suite.agents.rlpd import RLPD, RLPDConfig
from serl_suite.agents.snapshot import Snapshot
from serl_suite.data.replay import Replay
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SPEC = EnvSpec(
    task="T",
    observation={
        "state": ArraySpec(shape=(3,), dtype="float32"),
        "front": ArraySpec(shape=(64, 64, 3), dtype="uint8"),
    },
    action=ArraySpec(shape=(2,), dtype="float32", low=-1.0, high=1.0),
)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
SLEEP_CYCLES = 400_000_000
"""A few tenths of a second of a GPU."""


def need(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.mark.parametrize("device", DEVICES)
def test_a_snapshot_is_of_its_moment(device):
    need(device)
    tensors = {
        "transposed": torch.arange(6.0, device=device).view(2, 3).T,
        "scalar": torch.tensor(7.0, device=device),
        "long": torch.arange(5, device=device),
        "host": torch.tensor([1, 2], dtype=torch.uint8),
    }
    expected = {name: tensor.clone().cpu() for name, tensor in tensors.items()}
    snapshot = Snapshot(tensors)
    for tensor in tensors.values():
        tensor.zero_()
    taken = snapshot.tensors()
    assert list(taken) == list(tensors)
    for name, tensor in expected.items():
        assert taken[name].dtype == tensor.dtype
        assert torch.equal(taken[name], tensor), name
    assert snapshot.is_ready


@pytest.mark.parametrize("device", DEVICES)
def test_an_agent_is_as_its_snapshots_say(device):
    need(device)
    agent = RLPD(RLPDConfig(hidden=(16,), num_critics=2), SPEC, seed=0, device=device)
    taken, copied = Snapshot(agent.state_tensors()).tensors(), agent.state_dict()
    assert taken.keys() == copied.keys()
    assert all(torch.equal(taken[name], tensor) for name, tensor in copied.items())


def observation(rng):
    return {
        "state": rng.normal(size=3).astype(np.float32),
        "front": rng.integers(0, 256, (64, 64, 3), np.uint8),
    }


@pytest.mark.gpu
def test_neither_snapshots_nor_steps_wait_for_a_busy_device():
    need("cuda")
    rng = np.random.default_rng(0)
    agent = RLPD(RLPDConfig(hidden=(16,), num_critics=2), SPEC, seed=0, device="cuda")
    replay = Replay(SPEC, 100, seed=0, device="cuda")
    steps = [
        Step(
            seq=i, episode=0, index=i, observation=observation(rng), action=np.zeros(2, np.float32) if i else None
        )
        for i in range(20)
    ]  # fmt: skip
    Snapshot(agent.state_tensors()).tensors()  # the first one gets its memory
    for step in steps[:10]:
        replay.insert("a", step)
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP_CYCLES)
    busy = torch.cuda.Event()
    busy.record()
    start = time.perf_counter()
    snapshot = Snapshot(agent.state_tensors())
    for step in steps[10:]:
        replay.insert("a", step)
    took = time.perf_counter() - start
    assert not busy.query(), "the device was busy all the while"
    assert not snapshot.is_ready
    assert took < 0.05
    kept = replay.gather(
        torch.tensor([[15], [16]], device="cuda"), torch.zeros(1, 2, 1, 2, dtype=torch.int64, device="cuda")
    )
    assert np.array_equal(kept.next_images["front"][0].cpu().numpy(), steps[16].observation["front"])
    assert np.array_equal(kept.state[0].cpu().numpy(), steps[15].observation["state"])
