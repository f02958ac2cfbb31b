"""Trains an agent on made-up steps: `ranks_worker.py WHAT FILE`, one of several processes where torchrun starts it.

The first one leaves the agent's state, and the gradients of its last update, in FILE.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from serl_suite.agents.ranks import Ranks
from serl_suite.agents.rlpd import RLPD, RLPDConfig
from serl_suite.data.checkpoint import save_checkpoint
from serl_suite.data.mixing import mixed_sample
from serl_suite.data.replay import Replay
from serl_suite.networks.encoder_config import EncoderConfig
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SIDE, BATCH, UPDATES = 16, 32, 6
IMAGE = ArraySpec(shape=(SIDE, SIDE, 3), dtype="uint8")
POSE = {"pose": ArraySpec(shape=(3,), dtype="float32")}
SPECS = {
    what: EnvSpec(
        task="T", observation=seen, action=ArraySpec(shape=(2,), dtype="float32", low=-1.0, high=1.0)
    )
    for what, seen in {"states": POSE, "pictures": {**POSE, "front": IMAGE, "wrist": IMAGE}}.items()
}
CONFIG = RLPDConfig(
    hidden=(32, 32),
    batch_size=BATCH,
    num_critics=4,
    actor_period=2,
    learning_rate=3e-4,
    encoder=EncoderConfig(width=16, embeddings=2),
)


def filled(spec, seed):
    replay, rng = Replay(spec, 100, seed=seed), np.random.default_rng(seed)
    for seq in range(80):
        index = seq % 20
        observation = {"pose": rng.normal(size=3).astype(np.float32)}
        observation |= {key: rng.integers(0, 256, IMAGE.shape, np.uint8) for key in spec.image_keys}
        action = rng.uniform(-1, 1, 2).astype(np.float32) if index else None
        step = Step(
            seq=seq, episode=seq // 20, index=index, observation=observation, action=action,
            reward=float(rng.normal()),
        )  # fmt: skip
        replay.insert("a", step)
    return replay


def trained(what, ranks):
    """The agent's tensors and the gradients of its last update."""
    torch.set_num_threads(1)
    spec = SPECS[what]
    agent = RLPD(CONFIG, spec, seed=1, ranks=ranks)
    replays = [filled(spec, seed) for seed in (0, 1)]
    for _ in range(UPDATES):
        agent.update(mixed_sample(*replays, BATCH, 0.25, ranks.share))
    parameters = [*agent._critic_parameters, *agent._actor_parameters]
    return agent.state_dict() | {f"gradient.{i}": p.grad for i, p in enumerate(parameters)}


if __name__ == "__main__":
    dist.init_process_group("gloo")
    state = trained(sys.argv[1], Ranks(dist.get_rank(), dist.get_world_size()))
    if dist.get_rank() == 0:
        save_checkpoint(Path(sys.argv[2]), state, {})
    dist.barrier()
    dist.destroy_process_group()
