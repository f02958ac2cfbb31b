"""What dying and frozen processes cost: SIGKILL of learner and actor at random moments, a learner stopped by SIGSTOP.

Both run as `serl train` runs them, under the supervisor. The environment (tests/faults/counted_env.py) writes down what
an actor took from it; that list is compared with the run folder's. The full measure is `--kills 50 --frozen-s 60`.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from threading import Event

import numpy as np
from _table import Row, print_table, write_json

from serl_suite.agents.rlpd import RLPDConfig
from serl_suite.nodes.config import ActorConfig, LearnerConfig, TrainConfig
from serl_suite.nodes.run_folder import RunFolder
from serl_suite.nodes.supervisor import Supervisor

TASKS = Path(__file__).parent.parent / "tests" / "faults"
sys.path.insert(0, str(TASKS))
from ground_truth import Comparison, compare, periods, read_log  # noqa: E402

STEPS_BETWEEN_KILLS = 60
RATE_HZ = 20


def make_run(folder: Path, max_steps: int, actor: ActorConfig) -> RunFolder:
    """An empty run of the counted task, with small networks."""
    os.environ["PYTHONPATH"] = str(TASKS)
    os.environ["COUNTED_LOG"] = str(folder / "truth.log")
    config = TrainConfig(
        task="counted_env:Counted-v0",
        demos="none",
        max_steps=max_steps,
        agent=RLPDConfig(num_critics=2, hidden=(16,), utd=1.0, batch_size=16),
        learner=LearnerConfig(warmup_steps=20, checkpoint_every=40, publish_every=5),
        actor=actor,
    )
    return RunFolder.create(folder / "run", config)


def kill_at_random(folder: Path, kills: int, seed: int) -> tuple[int, Comparison]:
    """Kills survived, and what the run holds in the end."""
    run = make_run(folder, max_steps=200 + kills * (STEPS_BETWEEN_KILLS // 2 + 70), actor=ActorConfig())
    log, supervisor = folder / "truth.log", Supervisor(run)
    rng, done, due = np.random.default_rng(seed), 0, 30

    def kill_when_due() -> None:
        nonlocal done, due
        if done < kills and len(read_log(log)) >= due:
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(supervisor.pids[rng.choice(["learner", "actor"])], signal.SIGKILL)
            due = len(read_log(log)) + rng.integers(0, STEPS_BETWEEN_KILLS)
            done += 1

    outcome = supervisor.train(Event(), kill_when_due)
    return done if outcome is not None else 0, compare(run.path, log)


def freeze(folder: Path, frozen_s: float) -> tuple[list[float], Comparison]:
    """p99 of the actor's period before, during and after [s], and what the run holds in the end."""
    steps = int(RATE_HZ * frozen_s)
    run = make_run(folder, max_steps=2 * steps + 5 * RATE_HZ, actor=ActorConfig(pace="realtime"))
    log, supervisor = folder / "truth.log", Supervisor(run)
    began, marks = 0.0, []

    def freeze_and_thaw() -> None:
        nonlocal began
        count = len(read_log(log))
        if not marks and count >= steps:
            os.kill(supervisor.pids["learner"], signal.SIGSTOP)
            began = time.monotonic()
            marks.append(count)
        elif len(marks) == 1 and time.monotonic() > began + frozen_s:
            marks.append(count)
            os.kill(supervisor.pids["learner"], signal.SIGCONT)

    supervisor.train(Event(), freeze_and_thaw)
    frames = read_log(log)
    parts = (frames[5 : marks[0]], frames[marks[0] : marks[1]], frames[marks[1] :])
    return [float(np.quantile(periods(part), 0.99)) for part in parts], compare(run.path, log)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="SIGKILLs at random moments")
    parser.add_argument("--frozen-s", type=float, default=15.0, help="seconds that the learner is stopped")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        survived, killed = kill_at_random(Path(folder), arguments.kills, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        (before, during, after), frozen = freeze(Path(folder), arguments.frozen_s)
    rows = [
        Row(
            "SIGKILLs of learner or actor, training went on",
            f"{survived} of {arguments.kills}",
            "",
            "all",
            survived == arguments.kills,
        ),
        Row("steps lost", f"{killed.lost} of {killed.promised}", "", "0", killed.lost == 0),
        Row("steps twice", str(killed.duplicated), "", "0", killed.duplicated == 0),
        Row(
            f"actor's period p99 at {RATE_HZ} Hz, learner frozen for {arguments.frozen_s:g} s",
            f"{during * 1e3:.2f} ms (after it {after * 1e3:.2f} ms)",
            f"{before * 1e3:.2f} ms (before)",
            "within 5 %",
            during <= 1.05 * before,
        ),
        Row(
            "steps lost / twice, learner frozen",
            f"{frozen.lost} / {frozen.duplicated} of {frozen.promised}",
            "",
            "0 / 0",
            frozen.lost == frozen.duplicated == 0,
        ),
    ]
    passed = print_table("faults", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
