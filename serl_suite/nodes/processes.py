"""Starting the nodes as processes, so that none outlives the supervisor, and ending them in time."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from serl_suite.rewards.keys import terminal_of_this_process

__all__ = ["NodeProcess"]

PR_SET_PDEATHSIG = 1


class NodeProcess:
    """A `serl` command as a child in a process group of its own, its output in a log file.

    The terminal's Ctrl-C reaches only the supervisor, which then ends the children in order; the kernel ends them
    when the supervisor itself is killed (prctl(2), PR_SET_PDEATHSIG).

    Args:
        arguments: What follows `serl` on the command line.
        log: File that receives stdout and stderr.
    """

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self.log = log
        environment = (
            os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | terminal_of_this_process()
        )
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serl_suite.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Asks it to end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int:
        """Waits for the end, and kills what is still there after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def last_words(self, lines: int = 12) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
