"""Critic updates a second on a CUDA device, sampling included: CUDA graphs, beside update by update.

    python benchmarks/learner.py [--only states pictures features staged] [--json FILE]

    states    24-d state, 7-d action, 10 critics of which 2 make the target, 256 x 256, batch 256, UTD 8
    pictures  two cameras of 128 x 128, 18-d state, frozen ResNet-10, random shift, batch 256, end to end: 10 critics at
              ratio 4, and 2 critics at ratio 2
    staged    the same with one batch that is on the device already, so without drawing and gathering
    features  the same from a replay that keeps the features of four shifts of each picture

What others do of the same units on one H200, measured for the specification, in critic updates a second:

    states    SERL (JAX) 1,044 as its scripts run it, 2,377 with batches already on the device
    pictures  SERL (10 critics, ratio 4) 22.6, 62.4 with batches on the device; HIL-SERL (2 critics, ratio 2) 32.0 and
              81.8; LeRobot 0.6.2 (2 critics) 29.3

The backbone's weights are random, which changes no time.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from _table import Row, device_row, print_table, write_json

from serl_suite.agents.rlpd import RLPD
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.agents.update_graph import UpdateGraph
from serl_suite.data.columns import Features
from serl_suite.data.mixing import mixed_sample
from serl_suite.data.replay import Batch, Replay
from serl_suite.networks.encoder_config import EncoderConfig
from serl_suite.networks.host import tune_host
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

BATCH, ACTION_DIM, SIDE, SHIFT, EPISODE = 256, 7, 128, 4, 50
IMAGE = ArraySpec(shape=(SIDE, SIDE, 3), dtype="uint8")
ROUNDS = 7
NO_PICTURES = EncoderConfig()
ENCODER = EncoderConfig(backbone="resnet10", weights="random", frozen=True)


class Unit(NamedTuple):
    """One shape of work."""

    name: str
    spec: EnvSpec
    config: RLPDConfig
    steps: int
    """Frames in each of both replays: more than any cache holds."""
    target: float | None
    others: str


def spec_of(state_dim: int, cameras: Sequence[str]) -> EnvSpec:
    observation = {"state": ArraySpec(shape=(state_dim,), dtype="float32")} | dict.fromkeys(cameras, IMAGE)
    action = ArraySpec(shape=(ACTION_DIM,), dtype="float32", low=-1.0, high=1.0)
    return EnvSpec(task="Bench", observation=observation, action=action)


def config_of(critics: int, ratio: int, encoder: EncoderConfig) -> RLPDConfig:
    return RLPDConfig(
        num_critics=critics, critic_subset=2, hidden=(256, 256), batch_size=BATCH, utd=float(ratio),
        actor_period=ratio, encoder=encoder,
    )  # fmt: skip


STATES, PICTURES = spec_of(24, ()), spec_of(18, ("front", "wrist"))
KEPT = EncoderConfig(backbone="resnet10", weights="random", frozen=True, stored_shifts=4)
UNITS = {
    "states": [
        Unit("states, 10 critics, UTD 8", STATES, config_of(10, 8, NO_PICTURES), 20_000, 4500.0, "SERL 1,044")
    ],
    "pictures": [
        Unit("pictures, 10 critics, ratio 4", PICTURES, config_of(10, 4, ENCODER), 6000, 300.0, "SERL 22.6"),
        Unit("pictures, 2 critics, ratio 2", PICTURES, config_of(2, 2, ENCODER), 6000, 300.0, "HIL-SERL 32.0"),
    ],
    "features": [
        Unit("features, 10 critics, ratio 4", PICTURES, config_of(10, 4, KEPT), 6000, 1500.0, ""),
        Unit("features, 2 critics, ratio 2", PICTURES, config_of(2, 2, KEPT), 6000, 1500.0, ""),
    ],
    "staged": [
        Unit("batch on the device, 10 critics, ratio 4", PICTURES, config_of(10, 4, ENCODER), 600, None, "SERL 62.4"),
        Unit("batch on the device, 2 critics, ratio 2", PICTURES, config_of(2, 2, ENCODER), 600, None, "HIL-SERL 81.8"),
    ],
}  # fmt: skip


class Staged(Replay):
    """Always the same batch once there is one."""

    batch: Batch | None = None

    def gather(self, rows: torch.Tensor, views: torch.Tensor) -> Batch:
        return super().gather(rows, views) if self.batch is None else self.batch


def filled(kind: type[Replay], unit: Unit, seed: int, features: Features | None) -> Replay:
    """Episodes of random numbers; the same few random pictures again and again, at other places in memory."""
    rng, spec = np.random.default_rng(seed), unit.spec
    replay = kind(spec, unit.steps, seed=seed, device="cuda", shift=SHIFT, features=features)
    pictures = rng.integers(0, 256, (32, *IMAGE.shape), np.uint8)
    for seq in range(unit.steps):
        index = seq % EPISODE
        observation = {"state": rng.normal(size=spec.state_dim).astype(np.float32)}
        observation |= {key: pictures[rng.integers(32)] for key in spec.image_keys}
        step = Step(
            seq=seq, episode=seq // EPISODE, index=index, observation=observation,
            action=None if index == 0 else rng.uniform(-1, 1, ACTION_DIM).astype(np.float32),
            reward=float(index == EPISODE - 1), terminated=index == EPISODE - 1,
        )  # fmt: skip
        replay.insert("bench", step)
    if isinstance(replay, Staged):
        replay.batch = replay.sample(BATCH // 2)
    return replay


def updates_per_s(block: Callable[[], object], updates: int, seconds: float) -> list[float]:
    """Of each round, which takes about so long."""
    block()
    torch.cuda.synchronize()
    start = time.perf_counter()
    block()
    torch.cuda.synchronize()
    blocks = max(2, round(seconds / (time.perf_counter() - start)))
    rates = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        for _ in range(blocks):
            block()
        torch.cuda.synchronize()
        rates.append(blocks * updates / (time.perf_counter() - start))
    return rates[1:]


def measure(what: str, unit: Unit) -> list[Row]:
    agent, ratio = RLPD(unit.config, unit.spec, seed=0, device="cuda"), unit.config.actor_period
    kind = Staged if what == "staged" else Replay
    start = time.perf_counter()
    online, demos = (filled(kind, unit, seed, agent.kept_features()) for seed in (0, 1))
    torch.cuda.synchronize()
    insert_us = (time.perf_counter() - start) / unit.steps / 2 * 1e6

    def eager() -> None:
        for _ in range(ratio):
            agent.update(mixed_sample(online, demos, BATCH, 0.5))

    one_by_one = statistics.median(updates_per_s(eager, ratio, 0.3))
    agent = RLPD(unit.config, unit.spec, seed=0, device="cuda")
    start = time.perf_counter()
    graph = UpdateGraph(agent, [(online, BATCH // 2), (demos, BATCH // 2)], ratio)
    compiled_s = time.perf_counter() - start
    rates = updates_per_s(graph.run, ratio, 0.5)
    rate, frame = statistics.median(rates), online.nbytes / online.capacity
    rows = [
        Row(f"{unit.name}: critic updates/s", f"{rate:.0f} ({min(rates):.0f} to {max(rates):.0f})",
            f"{one_by_one:.0f} update by update" + (f"; {unit.others}" if unit.others else ""),
            "" if unit.target is None else f">= {unit.target:.0f}",
            None if unit.target is None else rate >= unit.target),
        Row("  compiled in, inserted in, size of a transition",
            f"{compiled_s:.0f} s, {insert_us:.0f} us, {frame / 1024:.1f} KiB", "",
            "<= 130 KiB" if what == "features" else "", frame <= 130 * 1024 if what == "features" else None),
    ]  # fmt: skip
    if what == "features":
        rows.append(exactness(agent, unit))
    return rows


def exactness(agent: RLPD, unit: Unit) -> Row:
    """What a replay of features hands out, against the backbone in float32 on a CPU, on the same crops."""
    features, few = agent.kept_features(), unit._replace(steps=EPISODE)
    assert features is not None
    kept, plain = filled(Replay, few, 0, features), filled(Replay, few, 0, None)
    draw = kept.draw(32)
    offsets = np.stack([
        np.random.default_rng(features.seed + place).integers(-SHIFT, SHIFT + 1, (EPISODE, features.views, 2))
        for place, _ in enumerate(unit.spec.image_keys)
    ])  # fmt: skip
    views = np.stack([shifts[draw.rows, draw.views[c, :, :, 0]] for c, shifts in enumerate(offsets)])
    ours = kept.gather(*(torch.from_numpy(part).cuda() for part in draw))
    crops = plain.gather(torch.from_numpy(draw.rows).cuda(), torch.from_numpy(views).cuda())
    reference = RLPD(agent.config, agent.spec, seed=0).encoder
    apart = 0.0
    for some, others in ((ours.images, crops.images), (ours.next_images, crops.next_images)):
        for camera in unit.spec.image_keys:
            right = reference.features(others[camera].cpu())
            apart = max(apart, float((some[camera].float().cpu() - right).norm() / right.norm()))
    return Row("  features against float32 on a CPU", f"{apart:.4f} apart", "", "<= 0.01", apart <= 0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=list(UNITS), default=list(UNITS))
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("this benchmark needs a CUDA device", file=sys.stderr)
        return 2
    tune_host()
    rows = [device_row("cuda")]
    for what in arguments.only:
        for unit in UNITS[what]:
            rows += measure(what, unit)
            print(*rows[-2][:3], flush=True)
            torch.cuda.empty_cache()
    passed = print_table("learner", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
