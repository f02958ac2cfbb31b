"""Runs `serl` as people do: a process of its own, with the tasks of the tests on its path."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parent.parent
SMALL = [
    *["--agent.num-critics", "2", "--agent.hidden", "16", "--agent.utd", "1", "--agent.batch-size", "16"],
    *["--learner.warmup-steps", "20", "--evaluation.attempt-at", "2"],
]
"""Settings that train nothing worth having, quickly and to the end of the budget."""


@contextmanager
def start(
    *arguments: object, environment: dict[str, str] | None = None, before: Callable[[], None] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A running `serl`; killed in the end, should it still be there."""
    paths = [str(TESTS / "faults"), str(TESTS / "integration"), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "serl_suite.cli.main", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        | (environment or {}),
        preexec_fn=before,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(*arguments: object, timeout_s: float = 120, **options: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a whole `serl`."""
    with start(*arguments, **options) as process:  # type: ignore[arg-type]
        out, err = process.communicate(timeout=timeout_s)
        return process.returncode, out, err


def nodes_of(run: Path) -> list[int]:
    """Learner and actor processes of a run, by the run's path in their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            words = _command_line(entry)
            if str(run) in words and {"learner", "actor"} & set(words):
                found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], object], timeout_s: float = 60.0) -> float:
    """Waits, and returns how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "waited in vain"
        time.sleep(0.02)
    return time.monotonic() - began


def _command_line(entry: Path) -> Sequence[str]:
    try:
        return (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
