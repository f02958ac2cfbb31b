"""Training on the wire twin in lockstep, through a robot server, beside training on the twin inside the process: with
the same task, seed and budget of env steps.

    python benchmarks/wire_training.py [--seeds 0 1 2] [--json FILE]

About twenty minutes a seed on two idle cores. The speed is that of a scripted expert's steps, resets apart.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gymnasium
import msgspec
import serl_envs
from _table import Row, print_table, write_json
from robot_server import started

from serl_suite.nodes.evaluation import read_result
from serl_suite.rig import Rig, read_rig

TASK = "FrankaPickCube-v0"
IP, SERVER = "127.0.8.2", "tcp://127.0.0.1:5865"
BUDGET = 4000
"""Env steps. Training in the process is done after 2020 to 2790, by seed; here both are to have had enough."""
EPISODES = 10
TARGET_POINTS, TARGET_STEPS_PER_S = 5, 15.0


@contextmanager
def wire_twin(folder: Path) -> Iterator[Rig]:
    """A twin in lockstep and a server, until the end of the block."""
    path = folder / "rig.yaml"
    scene = f"tcp://{IP}:1339"
    fields = {
        "arm": IP, "server": SERVER, "scene": scene, "pace": "lockstep", "grasp_force_n": 70.0,
        "reflex_force_n": 100.0,
    }  # fmt: skip
    path.write_bytes(msgspec.yaml.encode(fields))
    twin = ("serl_envs.twins.fci", "--port-ip", IP, "--task", TASK, "--mode", "lockstep")
    with (
        started(folder, "twin", "ports 1337", *twin),
        started(folder, "server", "serving the arm", "serl_servers.franka", "franka", "--rig", str(path)),
    ):
        yield read_rig(path)


def steps_per_s(rig: Rig) -> float:
    """Env steps in a second of real time."""
    assert TASK in serl_envs.TASKS
    env = gymnasium.make(TASK, rig=rig)
    expert = env.unwrapped.make_expert(noise=0.2, seed=0)
    steps, passed_s = 0, 0.0
    for seed in range(EPISODES):
        env.reset(seed=seed)
        expert.reset()
        began, done = time.monotonic(), False
        while not done:
            *_, terminated, truncated, _ = env.step(expert.act())
            steps, done = steps + 1, terminated or truncated
        passed_s += time.monotonic() - began
    env.close()
    return steps / passed_s


def train(folder: Path, name: str, seed: int, *options: str) -> int:
    """Trains for the whole budget; successes in a hundred fresh episodes."""
    run = folder / f"{name}-{seed}"
    command = [
        sys.executable,
        "-m",
        "serl_suite.cli.main",
        "train",
        TASK,
        "--seed",
        str(seed),
        "--run",
        str(run),
    ]
    budget = ("--max-steps", str(BUDGET), "--evaluation.attempt-at", "1.1")
    subprocess.run([*command, *budget, *options], check=False, stdout=subprocess.DEVNULL)
    successes = read_result(run / "evaluation.json").successes
    print(f"{name}, seed {seed}: {successes} of 100", flush=True)
    return successes


def main() -> int:
    """Prints the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with wire_twin(folder) as rig:
            speed = steps_per_s(rig)
            wire = [train(folder, "wire", seed, "--rig", rig.source) for seed in arguments.seeds]
        inside = [train(folder, "inside", seed) for seed in arguments.seeds]
    rows.append(
        Row(
            "env steps a second, wire twin in lockstep", f"{speed:.1f}", "10 in real time",
            f">= {TARGET_STEPS_PER_S:.0f}", speed >= TARGET_STEPS_PER_S,
        )
    )  # fmt: skip
    for seed, ours, baseline in zip(arguments.seeds, wire, inside, strict=True):
        rows.append(
            Row(
                f"success after {BUDGET} env steps on the wire twin, seed {seed}", f"{ours} of 100",
                f"{baseline} of 100, twin in the process", f"within {TARGET_POINTS} points",
                abs(ours - baseline) <= TARGET_POINTS,
            )
        )  # fmt: skip
    passed = print_table(f"{TASK} through a robot server", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
