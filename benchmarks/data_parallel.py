"""One learner on one GPU and on two: samples a second at a joint batch of 512 transitions, and equal gradients.

Two cameras of 128 x 128, 18-d state, 7-d action, a frozen ResNet-10 of random weights, random shift, 10 critics of
which 2 make the target, one update of actor and temperature in 4, half of the batch from demonstrations. Starts
torchrun itself, once with one process and once with two. The gradients of two processes are compared with those that
one of them finds for the joint batch: from the same float32 features, and from the pictures through the bfloat16
backbone, where convolutions of another batch size round otherwise.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from _table import Row, print_table, write_json

from serl_suite.agents.ranks import ALONE, Ranks
from serl_suite.agents.rlpd import RLPD
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.agents.update_graph import UpdateGraph
from serl_suite.data.mixing import mixed_sample
from serl_suite.data.replay import Batch, Replay
from serl_suite.networks.encoder_config import EncoderConfig
from serl_suite.networks.host import tune_host
from serl_suite.nodes.group import is_group, join_group
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

STATE_DIM, ACTION_DIM, SIDE, BATCH, RATIO = 18, 7, 128, 512, 4
STEPS, EPISODE = 2000, 50
CAMERAS = ("front", "wrist")
ENCODER = EncoderConfig(backbone="resnet10", weights="random", frozen=True)
CONFIG = RLPDConfig(
    num_critics=10, critic_subset=2, hidden=(256, 256), batch_size=BATCH, utd=float(RATIO), actor_period=RATIO,
    encoder=ENCODER,
)  # fmt: skip
SPEC = EnvSpec(
    task="Bench",
    observation={
        "state": ArraySpec(shape=(STATE_DIM,), dtype="float32"),
        **{camera: ArraySpec(shape=(SIDE, SIDE, 3), dtype="uint8") for camera in CAMERAS},
    },
    action=ArraySpec(shape=(ACTION_DIM,), dtype="float32", low=-1.0, high=1.0),
)
ROUNDS, ROUND_S = 5, 1.0
FASTER, EQUAL = 1.7, 1e-5


def make_replays(device: torch.device) -> list[Replay]:
    """Episodes of random pictures and numbers, the same on every rank: online ones and demonstrations."""
    replays = [Replay(SPEC, STEPS, seed=seed, device=device) for seed in (0, 1)]
    for seed, replay in enumerate(replays):
        rng = np.random.default_rng(seed)
        for seq in range(STEPS):
            index = seq % EPISODE
            observation = {"state": rng.normal(size=STATE_DIM).astype(np.float32)}
            observation |= {camera: rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for camera in CAMERAS}
            step = Step(
                seq=seq, episode=seq // EPISODE, index=index, observation=observation,
                action=None if index == 0 else rng.uniform(-1, 1, ACTION_DIM).astype(np.float32),
                reward=float(index == EPISODE - 1), terminated=index == EPISODE - 1,
            )  # fmt: skip
            replay.insert("bench", step)
    return replays


def samples_per_s(graph: UpdateGraph) -> list[float]:
    """Of each round, all ranks together; they begin and end a round together."""
    start, blocks = time.perf_counter(), 0
    while blocks < 8:
        graph.run()
        blocks += 1
    torch.cuda.synchronize()
    per_round = torch.tensor(max(1, round(blocks * ROUND_S / (time.perf_counter() - start))), device="cuda")
    if dist.is_initialized():
        dist.broadcast(per_round, 0)
    rates = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        if dist.is_initialized():
            dist.all_reduce(torch.zeros(1, device="cuda"))
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(int(per_round)):
            graph.run()
        torch.cuda.synchronize()
        rates.append(int(per_round) * RATIO * BATCH / (time.perf_counter() - start))
    return rates


def largest_difference(ranks: Ranks, replays: list[Replay], *, features: bool) -> float:
    """Between the gradients that the ranks agree on and those of the joint batch: largest over all parameters, each
    relative to its largest gradient. Steps are too small to matter, so that the actors see the same critics."""
    config = RLPDConfig(
        num_critics=10,
        hidden=(256, 256),
        batch_size=BATCH,
        actor_period=1,
        learning_rate=1e-12,
        encoder=ENCODER,
    )
    shared, alone = (RLPD(config, SPEC, seed=3, device="cuda", ranks=some) for some in (ranks, ALONE))
    joint = mixed_sample(*replays, BATCH, 0.5)
    if features:
        images, next_images = (
            {
                camera: alone.encoder.see({c: pictures[camera] for c in CAMERAS})[0].float()
                for camera in CAMERAS
            }
            for pictures in (joint.images, joint.next_images)
        )
        joint = joint._replace(images=images, next_images=next_images)
    shared.update(part_of(joint, ranks.share))
    alone.update(joint)
    worst = 0.0
    for name in ("_critic_parameters", "_actor_parameters"):
        for ours, theirs in zip(getattr(shared, name), getattr(alone, name), strict=True):
            worst = max(worst, float((ours.grad - theirs.grad).abs().max() / theirs.grad.abs().max()))
    return worst


def part_of(batch: Batch, share: slice) -> Batch:
    """Some of its transitions."""
    images, next_images = (
        {camera: pictures[share] for camera, pictures in some.items()}
        for some in (batch.images, batch.next_images)
    )
    part = Batch(*(None if x is None or isinstance(x, dict) else x[share] for x in batch))
    return part._replace(images=images, next_images=next_images)


def measure(ranks: Ranks, result: Path) -> None:
    """What one process of a learner does; the first one writes the figures down."""
    tune_host()
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device("cuda", torch.cuda.current_device())
    replays = make_replays(device)
    figures: dict[str, object] = {}
    if ranks.size > 1:
        figures["float32"] = largest_difference(ranks, replays, features=True)
        figures["bfloat16"] = largest_difference(ranks, replays, features=False)
    torch.backends.cuda.matmul.allow_tf32 = True
    agent = RLPD(CONFIG, SPEC, seed=0, device=device, ranks=ranks)
    start = time.perf_counter()
    graph = UpdateGraph(agent, [(replay, BATCH // 2) for replay in replays], RATIO)
    figures["capture_s"] = time.perf_counter() - start
    figures["samples_per_s"] = samples_per_s(graph)
    figures["device"] = torch.cuda.get_device_name()
    if ranks.rank == 0:
        result.write_text(json.dumps(figures))


def run_with(processes: int) -> dict[str, object]:
    """The figures of a learner of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "figures.json")
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        subprocess.run([sys.executable, *command, __file__, "--result", str(result)], check=True)
        figures: dict[str, object] = json.loads(result.read_text())
        print(f"{processes}: {figures}", flush=True)
        return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--result", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.result:
        with join_group() if is_group() else nullcontext() as group:
            measure(ALONE if group is None else group.ranks, Path(arguments.result))
        os._exit(0)  # NCCL may wait for ever for graphs that still hold its operations
    if torch.cuda.device_count() < 2:
        print("this benchmark needs two CUDA devices", file=sys.stderr)
        return 2
    one, two = run_with(1), run_with(2)
    rates = [statistics.median(figures["samples_per_s"]) for figures in (one, two)]
    spans = [f"({min(f['samples_per_s']):.0f} to {max(f['samples_per_s']):.0f})" for f in (one, two)]
    faster = rates[1] / rates[0]
    rows = [
        Row(
            f"pictures, batch {BATCH}, two processes: samples/s", f"{rates[1]:.0f} {spans[1]}",
            f"{rates[0]:.0f} {spans[0]}, one", "", None,
        ),
        Row("two processes, times the samples/s of one", f"{faster:.2f}", "1", f">= {FASTER}", faster >= FASTER),
        Row(
            "gradients beside one process's, float32 features: largest relative difference",
            f"{two['float32']:.1e}", "", f"<= {EQUAL:.0e}", two["float32"] <= EQUAL,
        ),
        Row("the same from pictures, bfloat16 backbone", f"{two['bfloat16']:.1e}", "", "", None),
        Row("time to compile and capture", f"{two['capture_s']:.1f} s", f"{one['capture_s']:.1f} s", "", None),
        Row(
            "devices",
            f"{torch.cuda.device_count()} x {one['device']}, torch {torch.__version__}, NCCL "
            f"{'.'.join(map(str, torch.cuda.nccl.version()))}, Python {platform.python_version()}",
            "", "", None,
        ),
    ]  # fmt: skip
    passed = print_table("data parallel", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
