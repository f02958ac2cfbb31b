"""Critic updates a second on a CUDA device, sampling included: a CUDA graph a block, beside update by update.

State only: 24-d state, 7-d action, 10 critics of which 2 make the target, 256 x 256, batch 256, half of it from
demonstrations, one update of actor and temperature in 8. Figures of others for this unit on one H200, measured for the
specification: SERL (JAX) 1,044 as its scripts run it, 2,377 with batches already on the device.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from _table import Row, print_table, write_json

from serl_suite.agents.rlpd import RLPD
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.agents.update_graph import UpdateGraph
from serl_suite.data.replay import Replay, mixed_sample
from serl_suite.networks.host import tune_host
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

STATE_DIM, ACTION_DIM, BATCH, UTD = 24, 7, 256, 8
STEPS, EPISODE = 20_000, 50
CONFIG = RLPDConfig(
    num_critics=10, critic_subset=2, hidden=(256, 256), batch_size=BATCH, utd=float(UTD), actor_period=UTD
)
SPEC = EnvSpec(
    task="Bench",
    observation={"state": ArraySpec(shape=(STATE_DIM,), dtype="float32")},
    action=ArraySpec(shape=(ACTION_DIM,), dtype="float32", low=-1.0, high=1.0),
)
ROUNDS = 7
TARGET = 4500.0


def fill(replay: Replay, steps: int, seed: int) -> None:
    """Episodes of random numbers."""
    rng = np.random.default_rng(seed)
    for seq in range(steps):
        index = seq % EPISODE
        step = Step(
            seq=seq, episode=seq // EPISODE, index=index,
            observation={"state": rng.normal(size=STATE_DIM).astype(np.float32)},
            action=None if index == 0 else rng.uniform(-1, 1, ACTION_DIM).astype(np.float32),
            reward=float(index == EPISODE - 1), terminated=index == EPISODE - 1,
        )  # fmt: skip
        replay.insert("bench", step)


def updates_per_s(block: Callable[[], object], blocks: int) -> list[float]:
    """Of each round."""
    rates = []
    for _ in range(ROUNDS + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(blocks):
            block()
        torch.cuda.synchronize()
        rates.append(blocks * UTD / (time.perf_counter() - start))
    return rates[1:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("this benchmark needs a CUDA device", file=sys.stderr)
        return 2
    tune_host()
    replays = [Replay(SPEC, STEPS, seed=seed, device="cuda") for seed in (0, 1)]
    for seed, replay in enumerate(replays):
        fill(replay, STEPS, seed)
    online, demos = replays
    eager = RLPD(CONFIG, SPEC, seed=0, device="cuda")

    def eager_block() -> None:
        for _ in range(UTD):
            eager.update(mixed_sample(online, demos, BATCH, 0.5))

    one_by_one = updates_per_s(eager_block, 10)
    start = time.perf_counter()
    graph = UpdateGraph(
        RLPD(CONFIG, SPEC, seed=0, device="cuda"), [(online, BATCH // 2), (demos, BATCH // 2)], UTD
    )
    compiled_s = time.perf_counter() - start
    at_once = updates_per_s(graph.run, 200)
    rate = statistics.median(at_once)
    rows = [
        Row(
            "state 24-d, 10 critics, UTD 8: critic updates/s",
            f"{rate:.0f} ({min(at_once):.0f} to {max(at_once):.0f})",
            f"{statistics.median(one_by_one):.0f}, update by update",
            f">= {TARGET:.0f}",
            rate >= TARGET,
        ),
        Row("time to compile and capture", f"{compiled_s:.1f} s", "", "", None),
        Row(
            "device",
            f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {platform.python_version()}",
            "",
            "",
            None,
        ),
    ]
    passed = print_table("learner", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
