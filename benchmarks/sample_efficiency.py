"""Env steps, wall-clock and cycle time that `serl train` needs to teach a twin, beside a plain RLPD in the same run.

The baseline is the same command with two critics of 256 x 256, UTD 4, learning rate 3e-4: RLPD without what was tuned.

    python benchmarks/sample_efficiency.py                                      # one seed of each, about five minutes
    python benchmarks/sample_efficiency.py --seeds 0 1 2 3 4 --no-baseline      # the claim for FrankaPickCube-v0
    python benchmarks/sample_efficiency.py --task FrankaPegInsert-v0 --seeds 0 1 2 --no-baseline
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
from _table import Row, print_table, write_json

from serl_suite.nodes.evaluation import read_result
from serl_suite.nodes.outcome import Outcome

PLAIN = [
    *("--agent.num-critics", "2", "--agent.hidden", "256", "256", "--agent.learning-rate", "3e-4"),
    *("--agent.utd", "4", "--agent.actor-period", "2"),
]
TARGETS = {"FrankaPickCube-v0": (2500, 4000), "FrankaPegInsert-v0": (8000, 16000)}
"""Env steps within which the median of the seeds, and every seed, must reach 95 of 100."""
TRAINING_TARGET_S = 300.0
CYCLE_TARGET = 0.8


class Trained(NamedTuple):
    """What one run achieved."""

    steps: int
    successes: int
    training_s: float
    cycle_ratio: float
    """Mean duration of a successful episode over the demonstrations'; inf without a success."""


def train(task: str, seed: int, options: list[str], folder: Path) -> Trained:
    """Runs `serl train` once, to its end."""
    run = folder / f"{task}-{seed}-{len(options)}"
    command = [
        sys.executable,
        "-m",
        "serl_suite.cli.main",
        "train",
        task,
        "--seed",
        str(seed),
        "--run",
        str(run),
    ]
    started = time.monotonic()
    subprocess.run([*command, *options], check=False, stdout=subprocess.DEVNULL)
    outcome = msgspec.json.decode((run / "outcome.json").read_bytes(), type=Outcome)
    result = read_result(run / "evaluation.json")
    cycle, demo_cycle = result.cycle_time_s, result.demo_cycle_time_s
    ratio = cycle / demo_cycle if cycle is not None and demo_cycle is not None else float("inf")
    trained = Trained(outcome.env_steps, result.successes, outcome.training_s, ratio)
    print(
        f"{task} seed {seed} {' '.join(options)}: {trained}, {time.monotonic() - started:.0f} s in all",
        flush=True,
    )
    return trained


def _rows(task: str, runs: list[Trained], plain: Trained | None) -> list[Row]:
    median_target, all_target = TARGETS[task]
    median_steps = statistics.median(run.steps if run.successes >= 95 else float("inf") for run in runs)
    slowest = max(run.steps for run in runs)
    passed = sum(run.successes >= 95 for run in runs)
    ratio, wall_s = max(run.cycle_ratio for run in runs), statistics.median(run.training_s for run in runs)

    def beside(value: str) -> str:
        return value if plain is not None else "not run"

    return [
        Row(
            "env steps to >= 95/100, median",
            f"{median_steps:.0f}",
            beside(f"{plain.steps} ({plain.successes}/100)" if plain else ""),
            f"<= {median_target}",
            median_steps <= median_target,
        ),
        Row(
            f"every seed >= 95/100 within {all_target}",
            f"{passed} of {len(runs)}, slowest {slowest}",
            "",
            "all",
            passed == len(runs) and slowest <= all_target,
        ),
        Row(
            "cycle time, slowest policy / demonstrations",
            f"{ratio:.2f}",
            beside(f"{plain.cycle_ratio:.2f}" if plain else ""),
            f"<= {CYCLE_TARGET}",
            ratio <= CYCLE_TARGET,
        ),
        Row(
            "wall-clock of training, median",
            f"{wall_s:.0f} s",
            beside(f"{plain.training_s:.0f} s" if plain else ""),
            f"<= {TRAINING_TARGET_S:.0f} s" if task == "FrankaPickCube-v0" else "-",
            wall_s <= TRAINING_TARGET_S if task == "FrankaPickCube-v0" else None,
        ),
    ]


def main() -> int:
    """Prints the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="FrankaPickCube-v0", choices=TARGETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--no-baseline", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--keep", type=Path, help="folder to keep the runs in")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp())
    runs = [train(arguments.task, seed, [], folder) for seed in arguments.seeds]
    plain = None if arguments.no_baseline else train(arguments.task, arguments.seeds[0], PLAIN, folder)
    rows = _rows(arguments.task, runs, plain)
    passed = print_table(f"{arguments.task}, seeds {arguments.seeds}", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
