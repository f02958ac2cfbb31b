"""Replay on the CPU with two 128 x 128 cameras, beside Stable-Baselines3's DictReplayBuffer.

Ours also shifts every image at random while it gathers; the baseline only gathers.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import gymnasium
import numpy as np
from _table import Row, print_table, write_json
from stable_baselines3.common.buffers import DictReplayBuffer

from serl_suite.data.replay import Replay
from serl_suite.networks.host import tune_host
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import Observation, env_spec

CAPACITY, EPISODE, BATCH = 2000, 100, 256
PAUSE_S = 0.1
"""Between episodes, as they come from a fast actor."""
INSERT_US, SAMPLE_MS, TRANSITION_BYTES = 50.0, 15.0, 99_000


class Cameras:
    """The spaces of an environment with two cameras and 30 numbers of state."""

    observation_space = gymnasium.spaces.Dict(
        {
            "front": gymnasium.spaces.Box(0, 255, (128, 128, 3), np.uint8),
            "wrist": gymnasium.spaces.Box(0, 255, (128, 128, 3), np.uint8),
            "state": gymnasium.spaces.Box(-np.inf, np.inf, (30,), np.float32),
        }
    )
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)
    metadata: ClassVar[dict[str, object]] = {}


def observations(count: int) -> list[Observation]:
    """Distinct random observations."""
    rng = np.random.default_rng(0)
    return [
        {
            "front": rng.integers(0, 256, (128, 128, 3), np.uint8),
            "wrist": rng.integers(0, 256, (128, 128, 3), np.uint8),
            "state": rng.normal(size=30).astype(np.float32),
        }
        for _ in range(count)
    ]


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def fill_ours(replay: Replay, frames: list[Observation], count: int) -> list[float]:
    """Inserts episodes, each in one go, and returns the seconds of each insert."""
    took, action = [], np.zeros(7, np.float32)
    for seq in range(count):
        episode, index = divmod(seq, EPISODE + 1)
        if index == 0:
            time.sleep(PAUSE_S)
        step = Step(
            seq=seq, episode=episode, index=index, observation=frames[seq % len(frames)],
            action=action if index else None, truncated=index == EPISODE,
        )  # fmt: skip
        took.append(timed(partial(replay.insert, "a", step)))
    return took


def fill_baseline(buffer: DictReplayBuffer, frames: list[Observation], count: int) -> list[float]:
    """The same for the baseline."""
    took, action, zero = [], np.zeros((1, 7), np.float32), np.zeros(1, np.float32)
    for i in range(count):
        if i % EPISODE == 0:
            time.sleep(PAUSE_S)
        before, after = ({k: v[None] for k, v in frames[j % len(frames)].items()} for j in (i, i + 1))
        took.append(timed(partial(buffer.add, before, after, action, zero, zero, [{}])))
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40, help="batches sampled")
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()
    tune_host()
    env, frames = Cameras(), observations(200)
    ours = Replay(env_spec("Cameras", env), CAPACITY, seed=0)
    plain = Replay(env_spec("Cameras", env), CAPACITY, seed=0, shift=0)
    theirs = DictReplayBuffer(CAPACITY, env.observation_space, env.action_space, device="cpu")
    insert = np.array(fill_ours(ours, frames, CAPACITY))  # the first round, into memory that was never used
    fill_ours(plain, frames, CAPACITY)
    insert_theirs = np.array(fill_baseline(theirs, frames, CAPACITY))
    ours.sample(BATCH)  # compiles the gather
    sample, gather, sample_theirs = [], [], []
    for _ in range(args.repeats):
        sample.append(timed(lambda: ours.sample(BATCH)))
        gather.append(timed(lambda: plain.sample(BATCH)))
        sample_theirs.append(timed(lambda: theirs.sample(BATCH)))
    bytes_theirs = sum(a.nbytes for d in (theirs.observations, theirs.next_observations) for a in d.values())
    us, ms = 1e6 * float(np.median(insert)), 1e3 * float(np.median(sample))
    size = ours.nbytes / CAPACITY
    rows = [
        Row("insert a step, median", f"{us:.1f} us", f"{1e6 * np.median(insert_theirs):.1f} us",
            f"<= {INSERT_US:.0f} us", us <= INSERT_US),
        Row("insert a step, p99", f"{1e6 * np.quantile(insert, 0.99):.1f} us",
            f"{1e6 * np.quantile(insert_theirs, 0.99):.1f} us", "", None),
        Row("sample 256 with random shift", f"{ms:.1f} ms", f"{1e3 * np.median(sample_theirs):.1f} ms, no shift",
            f"<= {SAMPLE_MS:.0f} ms", ms <= SAMPLE_MS),
        Row("sample 256 without shift", f"{1e3 * np.median(gather):.1f} ms",
            f"{1e3 * np.median(sample_theirs):.1f} ms", "<= 10 ms", float(np.median(gather)) <= 0.010),
        Row("bytes a transition", f"{size:,.0f}", f"{bytes_theirs / CAPACITY:,.0f}",
            f"<= {TRANSITION_BYTES:,}", size <= TRANSITION_BYTES),
        Row(f"  with the resets of {EPISODE}-step episodes", f"{ours.nbytes / len(ours):,.0f}", "", "", None),
    ]  # fmt: skip
    passed = print_table("Replay, two 128 x 128 cameras, CPU, one thread", rows)
    write_json(args.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
