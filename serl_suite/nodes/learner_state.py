"""What a learner takes up from the one before: its checkpoint, and the journal's steps that the checkpoint counts."""

import logging
from pathlib import Path
from typing import Any

import msgspec

from serl_suite.data.checkpoint import load_checkpoint
from serl_suite.nodes.backlog import Backlog
from serl_suite.nodes.training import Training

__all__ = ["Counters", "learner_meta", "restore_learner"]

log = logging.getLogger(__name__)


class Counters(msgspec.Struct):
    """What a checkpoint keeps beside the agent and the replays' random state."""

    env_steps: int = 0
    updates: int = 0
    version: int = 0
    owed: float = 0.0
    frames: int = 0
    """Steps taken from the journal or the actors so far, resets included; recovery replays exactly these first."""
    forgiven: float = 0.0
    training_s: float = 0.0
    block_is_open: bool = False
    """Steps were taken whose updates are not all paid, so no policy that has learnt from them is published."""


def learner_meta(counters: Counters, training: Training) -> dict[str, Any]:
    """What a checkpoint says beside the agent's tensors."""
    return {
        "counters": msgspec.to_builtins(counters),
        "online_rng": training.experience.online.rng_state(),
        "demos_rng": training.experience.demos.rng_state(),
    }


def restore_learner(path: Path, training: Training, backlog: Backlog) -> Counters:
    """Takes up a checkpoint: updates go on exactly as they would have.

    Args:
        path: Of the checkpoint.
        training: Without online steps; gets those that the checkpoint counts.
        backlog: All steps of the journal; those are taken out of it.

    Raises:
        BadCheckpoint: The file is damaged or of another version.
        BadAgent: It is of an agent with other settings.
    """
    tensors, meta = load_checkpoint(path)
    counters = msgspec.convert(meta["counters"], Counters)
    training.load(tensors, meta["online_rng"], meta["demos_rng"])
    if len(backlog) < counters.frames:
        log.warning("the journal holds %d steps of %d; the rest is sent again", len(backlog), counters.frames)
    for _ in range(min(counters.frames, len(backlog))):
        training.insert(*backlog.pop())
    log.info("resumed at %d env steps, %d updates", counters.env_steps, counters.updates)
    return counters
