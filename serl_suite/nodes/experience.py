"""What the learner samples from: one replay of what actors do, one of demonstrations and interventions."""

import os

import torch

from serl_suite.data.columns import Features
from serl_suite.data.mixing import mixed_sample, mixed_split
from serl_suite.data.replay import Batch, Replay
from serl_suite.errors import SerlError
from serl_suite.nodes.config import TrainConfig
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import EnvSpec

__all__ = ["Experience", "ReplayTooLarge", "capacities", "check_memory", "frame_bytes"]

MEMORY_SHARE = 0.8
"""Of the device's memory, for both replays when they are full; the rest is for everything else."""
BOOKKEEPING_BYTES = 51
"""Of a frame in a replay, beside its arrays: reward and mask, links, rank, flags."""


class ReplayTooLarge(SerlError):
    """The replays would not fit into memory."""


class Experience:
    """Both replays of a run.

    Args:
        spec: What a step holds.
        config: Of the run.
        demonstrated: Steps that `demonstrate` will bring.
        features: What the replays keep in the place of images.
        sharing: Processes on this machine that hold such replays.

    Raises:
        ReplayTooLarge: See `check_memory`.
    """

    def __init__(
        self,
        spec: EnvSpec,
        config: TrainConfig,
        demonstrated: int = 0,
        *,
        features: Features | None = None,
        sharing: int = 1,
    ) -> None:
        check_memory(spec, config, demonstrated, features, sharing)
        self.demonstrated = demonstrated
        """Steps of demonstrations, all told."""
        self.online, self.demos = (
            Replay(
                spec, capacity, seed=config.seed + 1 + place, device=_device(config),
                shift=config.agent.encoder.shift, features=features,
            )
            for place, capacity in enumerate(capacities(config, demonstrated))
        )  # fmt: skip
        self._previous: dict[str, Step] = {}

    def demonstrate(self, session_id: str, step: Step) -> None:
        """A step of a demonstration, into the second replay."""
        self.demos.insert(session_id, step)

    def insert(self, session_id: str, step: Step) -> None:
        """Into the online replay; an intervention into the demonstrations as well."""
        self.online.insert(session_id, step)
        if step.intervention:
            self.demos.insert(session_id, step, previous=self._previous.get(session_id))
        self._previous[session_id] = step

    def sample(self, batch_size: int, demo_fraction: float, share: slice) -> Batch:
        """A share of a batch of both; see `mixed_sample`."""
        return mixed_sample(self.online, self.demos, batch_size, demo_fraction, share)

    def split(self, batch_size: int, demo_fraction: float) -> tuple[int, int]:
        """How many transitions of such a batch are online ones, how many demonstrations."""
        return mixed_split(self.online, self.demos, batch_size, demo_fraction)


def capacities(config: TrainConfig, demonstrated: int) -> tuple[int, int]:
    """Frames of the online replay and of the demonstrations', which a run does not fill further than its budget:
    a transition takes no more than two frames, and any of them may be an intervention."""
    most = config.learner.replay_capacity
    return min(most, 2 * config.max_steps + 2), min(most, 2 * config.max_steps + 2 + demonstrated)


def check_memory(
    spec: EnvSpec,
    config: TrainConfig,
    demonstrated: int = 0,
    features: Features | None = None,
    sharing: int = 1,
) -> None:
    """Full replays fit into memory. Reserves nothing.

    Raises:
        ReplayTooLarge: They do not; the message names the capacity that would.
    """
    frames, frame = sum(capacities(config, demonstrated)), frame_bytes(spec, features)
    device, host = _device(config), torch.device("cpu")
    limit = MEMORY_SHARE * _memory_bytes(device, sharing)
    if frames * frame > limit:
        fits_host = device != host and frames * frame <= MEMORY_SHARE * _memory_bytes(host, sharing)
        elsewhere = "keep them in the host's memory with --learner.replay-device cpu, " if fits_host else ""
        raise ReplayTooLarge(
            f"replays of {frames} frames of {frame} bytes take {1e-9 * frames * frame:.3g} GB, and {1e-9 * limit:.3g} "
            f"GB is what they may take on {device}; give the learner --learner.replay-capacity "
            f"{int(limit / (2 * frame))} or less, {elsewhere}or observe fewer or smaller images"
        )


def frame_bytes(spec: EnvSpec, features: Features | None = None) -> int:
    """What a replay reserves for each frame of its capacity."""
    images = sum(spec.observation[key].size for key in spec.image_keys)
    if features is not None:
        images = len(spec.image_keys) * features.views * features.size * features.dtype.itemsize
    return images + 4 * (spec.state_dim + spec.action_dim) + BOOKKEEPING_BYTES


def _device(config: TrainConfig) -> torch.device:
    """Where the replays are."""
    return torch.device("cpu" if config.learner.replay_device == "cpu" else config.learner.device)


def _memory_bytes(device: torch.device, sharing: int) -> int:
    """Of a card, which is this process's alone, or its part of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // sharing
