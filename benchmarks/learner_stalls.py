"""What a learner on a GPU loses while everything else it does goes on: the longest stall, and the mean block.

A whole learner, run free, and an actor in a process of its own that sends steps at 20 Hz. It publishes a policy every
50 updates, writes a checkpoint every 160 steps, and takes in and journals every step. Measured on the device: the time
from the end of one block to the end of the next, less that of the median block; and its mean beside that of the same
graph by itself, back to back, once training is over. State only, where blocks are shortest and a stall shows most; and
two pictures of 128 x 128 through a frozen ResNet-10 of random weights.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from itertools import pairwise
from multiprocessing.synchronize import Event as SharedEvent
from pathlib import Path

import numpy as np
import torch
from _table import Row, device_row, print_table, write_json

from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.agents.update_graph import UpdateGraph
from serl_suite.networks.encoder_config import EncoderConfig
from serl_suite.nodes.config import ActorConfig, LearnerConfig, TrainConfig
from serl_suite.nodes.learner import Learner
from serl_suite.nodes.run_folder import RunFolder
from serl_suite.wire.client import ActorClient
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

STATE_DIM, ACTION_DIM, SIDE, EPISODE, RATE_HZ = 18, 7, 128, 100, 20.0
MEASURED_S, ALONE_S, BLOCKS_LEFT_OUT = 20.0, 3.0, 50
"""The first blocks follow the compilation."""
MOST_S, MOST_SLOWER = 2e-3, 0.05
CAMERAS = ("front", "wrist")
ENCODER = EncoderConfig(backbone="resnet10", weights="random", frozen=True)
AGENT = RLPDConfig(
    num_critics=10, hidden=(256, 256), batch_size=256, utd="free", actor_period=4, encoder=ENCODER
)
STATE = {"state": ArraySpec(shape=(STATE_DIM,), dtype="float32")}
PICTURES = {camera: ArraySpec(shape=(SIDE, SIDE, 3), dtype="uint8") for camera in CAMERAS}
ACTION = ArraySpec(shape=(ACTION_DIM,), dtype="float32", low=-1.0, high=1.0)
WHAT = {"state": STATE, "pictures": {**STATE, **PICTURES}}


def act(address: str, observed: str, spool: str, over: SharedEvent) -> None:
    """The actor's process: random steps at `RATE_HZ`."""
    spec = EnvSpec(task="Bench", observation=WHAT[observed], action=ACTION)
    client, rng = ActorClient(address, "bench", spec, Path(spool)), np.random.default_rng(0)
    client.connect(60)
    seq, due_s = 0, time.monotonic()
    while not over.is_set():
        index = seq % EPISODE
        seen = {
            key: rng.integers(0, 256, array.shape, np.uint8)
            if array.dtype == "uint8"
            else rng.normal(size=array.shape).astype(np.float32)
            for key, array in spec.observation.items()
        }
        action = None if index == 0 else rng.uniform(-1, 1, ACTION_DIM).astype(np.float32)
        client.put(Step(seq=seq, episode=seq // EPISODE, index=index, observation=seen, action=action,
                        truncated=index == EPISODE - 1))  # fmt: skip
        seq += 1
        due_s += 1.0 / RATE_HZ
        time.sleep(max(0.0, due_s - time.monotonic()))
    client.close()


class Timed:
    """Puts an event on the device's stream after every block of `UpdateGraph`."""

    def __init__(self) -> None:
        self.ends: list[torch.cuda.Event] = []
        self.graph: UpdateGraph | None = None
        run = UpdateGraph.run

        def timed(graph: UpdateGraph) -> dict[str, torch.Tensor]:
            metrics, self.graph = run(graph), graph
            self.ends.append(torch.cuda.Event(enable_timing=True))
            self.ends[-1].record()
            return metrics

        self._plain, UpdateGraph.run = run, timed

    def periods_s(self) -> list[float]:
        """From the end of one block to the end of the next."""
        UpdateGraph.run = self._plain
        torch.cuda.synchronize()
        ends = self.ends[BLOCKS_LEFT_OUT:]
        return [1e-3 * before.elapsed_time(after) for before, after in pairwise(ends)]

    def alone_s(self) -> float:
        """Mean time of the last graph's blocks with nothing else to do."""
        assert self.graph is not None
        torch.cuda.synchronize()
        start, blocks = time.perf_counter(), 0
        while time.perf_counter() - start < ALONE_S:
            for _ in range(50):
                self.graph.run()
            torch.cuda.synchronize()
            blocks += 50
        return (time.perf_counter() - start) / blocks


def measure(observed: str) -> tuple[list[float], float, Learner]:
    """Trains for a while: how long each block took, how long one takes alone, and the learner."""
    settings = LearnerConfig(
        device="cuda", replay_capacity=10_000, warmup_steps=40, publish_every=50, checkpoint_every=160
    )
    config = TrainConfig(
        task="Bench", demos="none", max_steps=100_000, agent=AGENT, learner=settings,
        actor=ActorConfig(pace="realtime"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder, "run"), config)
        learner, timed = Learner(run), Timed()
        over, stop = multiprocessing.get_context("spawn").Event(), threading.Event()
        actor = multiprocessing.get_context("spawn").Process(
            target=act, args=(learner.address, observed, str(Path(folder, "spool")), over)
        )
        actor.start()

        def end() -> None:
            while len(timed.ends) < BLOCKS_LEFT_OUT and actor.is_alive():
                time.sleep(0.1)
            time.sleep(MEASURED_S)
            over.set()
            stop.set()

        threading.Thread(target=end, daemon=True).start()
        learner.run(stop)
        actor.join()
        return timed.periods_s(), timed.alone_s(), learner


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("this benchmark needs a CUDA device", file=sys.stderr)
        return 2
    rows = []
    for observed in WHAT:
        periods, alone, learner = measure(observed)
        block, mean = statistics.median(periods), statistics.mean(periods)
        longest, counters = max(periods) - block, learner.counters
        rows += [
            Row(
                f"{observed}: longest stall between two of {len(periods)} blocks", f"{1e3 * longest:.2f} ms",
                f"{1e3 * block:.2f} ms, the median block", f"<= {1e3 * MOST_S:.0f} ms", longest <= MOST_S,
            ),
            Row(
                f"{observed}: mean block, an actor of 20 Hz connected", f"{1e3 * mean:.3f} ms",
                f"{1e3 * alone:.3f} ms, the same graph by itself",
                f"<= {100 * MOST_SLOWER:.0f} % more", mean <= (1 + MOST_SLOWER) * alone,
            ),
            Row(
                f"{observed}: what went on meanwhile",
                f"{counters.env_steps} steps, {counters.version} policies, {counters.updates} updates, "
                f"{1e3 * (statistics.quantiles(periods, n=1000)[-1] - block):.2f} ms at the 99.9th percentile",
                "", "", None,
            ),
        ]  # fmt: skip
    rows.append(device_row("cuda"))
    passed = print_table("learner stalls", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
