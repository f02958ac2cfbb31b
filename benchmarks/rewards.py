"""Success classifiers on held-out episodes of the twin, and what a verdict costs in the loop.

The baseline, trained on the same frames in the same run, is the usual mistake: a random backbone that no gradient
reaches, with a head on top.

How many starts it takes depends on the task: 240 do for FrankaPickCube-v0; FrankaPegInsert-v0, where a tenth of a pixel
decides, takes 1000, and those a GPU (--device cuda).
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import msgspec
from _table import Row, device_row, print_table, write_json

from serl_suite.networks.encoder_config import RANDOM
from serl_suite.networks.host import tune_host
from serl_suite.nodes.environment import Environment
from serl_suite.nodes.reward_recording import record_attempts
from serl_suite.rewards.config import ClassifierConfig
from serl_suite.rewards.frames import Frames, read_frames
from serl_suite.rewards.scores import Scores, score
from serl_suite.rewards.success import SuccessReward
from serl_suite.rewards.training import Training

SEED = 7000
"""Of the first part of the recordings. Settings were chosen on others."""
PART = 20
"""Starts that a process records at a time."""
CAMERAS = ("front", "wrist")
ACCURACY, FALSE_POSITIVES, CALIBRATION = 0.99, 0.005, 0.03
VERDICT_MS = 10.0
"""A tenth of the actor's step at 10 Hz."""


def record(task: str, folder: Path, starts: int, processes: int) -> None:
    """Records in many processes what is not there yet."""
    parts = range(0, starts, PART)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        jobs = [pool.submit(record_part, task, folder / str(first), first) for first in parts]
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            print(f"{task}: {PART * done} of {PART * len(parts)} starts    ", end="\r", flush=True)


def record_part(task: str, folder: Path, first: int) -> None:
    """Records starts from the `first` on, unless the folder is full."""
    if len(list(folder.glob("*.parquet"))) == 2 * PART:
        return
    environment = Environment(task, cameras=CAMERAS)
    for _ in record_attempts(environment, folder, starts=PART, noise=0.2, seed=SEED + first):
        pass
    environment.close()


def train(frames: Frames, config: ClassifierConfig, device: str) -> tuple[SuccessReward, Scores, float]:
    """Trains, and scores the test episodes, which have set nothing; with the seconds that it took."""
    start = time.perf_counter()
    training = Training(frames, config, [], device)
    for epoch in training.epochs():
        print(f"epoch {epoch.number} of {config.epochs}: loss {epoch.loss:.4f}    ", end="\r", flush=True)
    model = training.finish()
    took = time.perf_counter() - start
    return SuccessReward(model, frames.spec), score(model, frames.only(model.card.parts.test)), took


def verdict_ms(reward: SuccessReward, frames: Frames) -> float:
    """Median over the frames of an episode, two cameras."""
    clip, took = frames.clips[0], []
    reward.reset()
    for row in range(len(clip.labels)):
        observation = {key: array[row] for key, array in {**clip.states, **clip.pictures}.items()}
        start = time.perf_counter()
        reward.judge(observation)
        took.append(time.perf_counter() - start)
    return 1e3 * statistics.median(took)


def rows_of(task: str, frames: Frames, config: ClassifierConfig, device: str) -> list[Row]:
    """The claims for one task."""
    random = msgspec.structs.replace(config, weights=RANDOM, frozen=True)
    reward, ours, took = train(frames, config, device)
    _, base, took_base = train(frames, random, device)
    s, b = ours.summary(), base.summary()
    cost = verdict_ms(reward, frames)
    return [
        Row(f"{task}: accuracy, {s['frames']} test frames of {s['episodes']} episodes", f"{100 * ours.accuracy:.2f} %",
            f"{100 * base.accuracy:.2f} %", f">= {100 * ACCURACY:g} %", ours.accuracy >= ACCURACY),
        Row(f"{task}: false positives at the threshold", f"{100 * ours.false_positive_rate:.2f} %",
            f"{100 * base.false_positive_rate:.2f} %", f"<= {100 * FALSE_POSITIVES:g} %",
            ours.false_positive_rate <= FALSE_POSITIVES),
        Row(f"{task}: calibration error", f"{ours.calibration.error:.3f}", f"{base.calibration.error:.3f}",
            f"<= {CALIBRATION:g}", ours.calibration.error <= CALIBRATION),
        Row(f"{task}: false negatives, of {s['success_frames']} frames", f"{100 * (1 - ours.true_positive_rate):.1f} %",
            f"{100 * (1 - base.true_positive_rate):.1f} %", "", None),
        Row(f"{task}: successes found / episodes falsely declared",
            f"{s['episodes_found']} of {s['episodes_with_success']} / {s['episodes_falsely_declared']}",
            f"{b['episodes_found']} of {b['episodes_with_success']} / {b['episodes_falsely_declared']}", "", None),
        Row(f"{task}: training", f"{took:.0f} s", f"{took_base:.0f} s", "", None),
        Row(f"{task}: a verdict, two cameras, one thread", f"{cost:.1f} ms", "", f"<= {VERDICT_MS:g} ms",
            cost <= VERDICT_MS if device == "cpu" else None),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=["FrankaPickCube-v0"])
    parser.add_argument(
        "--starts", type=int, default=240, metavar=f"{PART}N",
        help="recorded of each task, with a success and a failure each",
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=ClassifierConfig().epochs)
    parser.add_argument("--data", type=Path, help="folder to keep the recordings in, and to take them from")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that record at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()
    tune_host()
    rows = [device_row(args.device)]
    with tempfile.TemporaryDirectory() as temporary:
        for task in args.tasks:
            folder = (args.data or Path(temporary)) / task
            record(task, folder, args.starts, args.processes)
            frames = read_frames([folder], CAMERAS)
            rows += rows_of(task, frames, ClassifierConfig(epochs=args.epochs), args.device)
    passed = print_table("Success classifiers, two cameras 128 x 128", rows)
    write_json(args.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
