"""One learner of two processes, as torchrun starts it, with a real actor."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "faults")]
from serl_command import SMALL, start, wait_until  # noqa: E402

from serl_suite.data.checkpoint import load_checkpoint  # noqa: E402
from serl_suite.nodes.learner import Outcome  # noqa: E402

pytestmark = pytest.mark.slow
TASK = ["point_env:Point-v0", "--demos", "none", *SMALL]


@contextmanager
def torchrun(folder, *arguments):
    """A learner of two processes; its output goes to a file, for nobody reads it meanwhile."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "--",
    ]
    environment = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    log = folder.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "serl_suite.nodes.learner", *map(str, arguments)],
            stdout=output, stderr=subprocess.STDOUT, env=environment,
        )  # fmt: skip
    try:
        yield process, log
    finally:
        process.terminate()
        process.wait(40)


def ranks_of(process):
    """Process ids of torchrun's children, the first one first."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sorted(map(int, children))


def metrics_of(folder):
    return folder / "metrics" / "learner.jsonl"


def test_two_processes_train_stop_at_ctrl_c_and_go_on(tmp_path):
    folder = tmp_path / "run"
    with torchrun(folder, *TASK, "--max-steps", 300, "--run", folder) as (process, log):
        wait_until((folder / "learner.address").exists)
        with start("actor", "--run", folder):
            wait_until(lambda: list((folder / "episodes").rglob("*.parquet")))
            process.send_signal(signal.SIGINT)
            process.wait(40)
            assert "Stopped; everything is kept" in log.read_text()
    stopped = load_checkpoint(folder / "checkpoints" / "learner.safetensors")[1]["counters"]
    with torchrun(folder, "--resume", folder) as (process, log):
        wait_until((folder / "learner.address").exists)
        with start("actor", "--run", folder):
            process.wait(100)
            assert process.returncode == 0, log.read_text()
    outcome = msgspec.json.decode((folder / "outcome.json").read_bytes(), type=Outcome)
    assert outcome.env_steps == 300
    assert outcome.updates == 280 > stopped["updates"]


def test_where_one_process_dies_all_end_and_say_so(tmp_path):
    folder = tmp_path / "run"
    with torchrun(folder, *TASK, "--max-steps", 100_000, "--run", folder) as (process, log):
        wait_until((folder / "learner.address").exists)
        with start("actor", "--run", folder):
            wait_until(
                lambda: metrics_of(folder).exists() and "critic/loss" in metrics_of(folder).read_text()
            )
            first, second = ranks_of(process)
            os.kill(second, signal.SIGKILL)
            assert wait_until(lambda: process.poll() is not None) < 20
    assert process.returncode != 0
    assert "process 1 of the learner's 2 has died, so this one (0) ends as well" in log.read_text()
    assert not Path(f"/proc/{first}").exists()


def test_batches_that_cannot_be_shared_are_refused_with_one_that_can(tmp_path):
    folder = tmp_path / "run"
    with torchrun(folder, *TASK, "--run", folder, "--agent.batch-size", 18) as (process, log):
        process.wait(60)
    text = log.read_text()
    assert process.returncode != 0
    assert "2 processes cannot share batches of 18 transitions, 9 of them demonstrations, evenly" in text
    assert "--agent.batch-size 20" in text
    assert not folder.exists()
