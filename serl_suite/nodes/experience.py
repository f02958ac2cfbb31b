"""What the learner samples from: one replay of what actors do, one of demonstrations and interventions."""

import os
from collections.abc import Sequence

import torch

from serl_suite.data.episodes import Episode
from serl_suite.data.replay import Batch, Replay, mixed_sample, mixed_split
from serl_suite.errors import SerlError
from serl_suite.nodes.config import LearnerConfig
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import EnvSpec

__all__ = ["Experience", "ReplayTooLarge", "check_memory", "frame_bytes"]

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
        settings: Capacity and device.
        seed: The replays draw from this and the next one.
        demonstrations: Fill the second replay.

    Raises:
        ReplayTooLarge: See `check_memory`.
    """

    def __init__(
        self, spec: EnvSpec, settings: LearnerConfig, *, seed: int, demonstrations: Sequence[Episode]
    ) -> None:
        check_memory(spec, settings)
        self.online = Replay(spec, settings.replay_capacity, seed=seed, device=settings.device)
        self.demos = Replay(spec, settings.replay_capacity, seed=seed + 1, device=settings.device)
        self._previous: dict[str, Step] = {}
        for episode in demonstrations:
            for step in episode.steps:
                self.demos.insert(f"demo/{episode.session_id}/{episode.number}", step)

    def insert(self, session_id: str, step: Step) -> None:
        """Into the online replay; an intervention into the demonstrations as well."""
        self.online.insert(session_id, step)
        if step.intervention:
            self.demos.insert(session_id, step, previous=self._previous.get(session_id))
        self._previous[session_id] = step

    def sample(self, batch_size: int, demo_fraction: float) -> Batch:
        """A batch of both; see `mixed_sample`."""
        return mixed_sample(self.online, self.demos, batch_size, demo_fraction)

    def split(self, batch_size: int, demo_fraction: float) -> tuple[int, int]:
        """How many transitions of such a batch are online ones, how many demonstrations."""
        return mixed_split(self.online, self.demos, batch_size, demo_fraction)


def check_memory(spec: EnvSpec, settings: LearnerConfig) -> None:
    """Full replays fit into memory: `2 replay_capacity frame_bytes <= MEMORY_SHARE memory`. Reserves nothing.

    Raises:
        ReplayTooLarge: They do not; the message names the capacity that would.
    """
    capacity, frame = settings.replay_capacity, frame_bytes(spec)
    limit = MEMORY_SHARE * _memory_bytes(torch.device(settings.device))
    if 2 * capacity * frame > limit:
        raise ReplayTooLarge(
            f"two replays of {capacity} frames of {frame} bytes take {2e-9 * capacity * frame:.3g} GB, and "
            f"{1e-9 * limit:.3g} GB is what they may take on {settings.device}; give the learner "
            f"--learner.replay-capacity {int(limit / (2 * frame))} or less, or observe fewer or smaller images"
        )


def frame_bytes(spec: EnvSpec) -> int:
    """What a replay reserves for each frame of its capacity."""
    images = sum(spec.observation[key].size for key in spec.image_keys)
    return images + 4 * (spec.state_dim + spec.action_dim) + BOOKKEEPING_BYTES


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
