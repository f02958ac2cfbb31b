"""A GPU that is full: the error says what to do."""

import msgspec
import pytest
import torch

from serl_suite.nodes.config import LearnerConfig, TrainConfig
from serl_suite.nodes.device_memory import DeviceFull, out_of_memory_explained
from serl_suite.nodes.experience import ReplayTooLarge, check_memory
from serl_suite.wire.spaces import ArraySpec, EnvSpec

pytestmark = pytest.mark.gpu
TOO_MUCH = 1 << 45
SPEC = EnvSpec(
    task="T",
    observation={"front": ArraySpec(shape=(128, 128, 3), dtype="uint8")},
    action=ArraySpec(shape=(2,), dtype="float32", low=-1.0, high=1.0),
)


@pytest.fixture(autouse=True)
def _needs_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def test_memory_that_is_not_there_is_explained():
    with (
        pytest.raises(
            DeviceFull, match=r"cuda:0 has no memory left \(.* GB are free\).*--learner.replay-device cpu"
        ),
        out_of_memory_explained(torch.device("cuda:0")),
    ):
        torch.empty(TOO_MUCH, dtype=torch.uint8, device="cuda:0")


def test_it_is_explained_in_a_capture_too():
    graph = torch.cuda.CUDAGraph()
    with (
        pytest.raises(DeviceFull, match="no memory left"),
        out_of_memory_explained(torch.device("cuda:0")),
        torch.cuda.graph(graph),
    ):
        torch.empty(TOO_MUCH, dtype=torch.uint8, device="cuda:0")


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="size"), out_of_memory_explained(torch.device("cuda:0")):
        torch.zeros(2, device="cuda") @ torch.zeros(3, device="cuda")


def test_a_replay_that_only_the_host_can_hold_is_refused_with_that_remedy():
    card = torch.cuda.get_device_properties(0).total_memory
    frames = int(0.9 * card / (2 * 3 * 128 * 128))
    config = TrainConfig(
        task="T", max_steps=frames, learner=LearnerConfig(device="cuda", replay_capacity=frames)
    )
    on_host = msgspec.structs.replace(
        config, learner=msgspec.structs.replace(config.learner, replay_device="cpu")
    )
    try:
        check_memory(SPEC, on_host)
    except ReplayTooLarge:
        pytest.skip("the host is smaller than the card")
    with pytest.raises(ReplayTooLarge, match=r"host's memory with --learner.replay-device cpu"):
        check_memory(SPEC, config)
