"""The supervisor: runs a learner and its actors on one machine, and starts again what was killed."""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

import msgspec

from serl_suite.errors import SerlError
from serl_suite.nodes.outcome import Outcome
from serl_suite.nodes.processes import NodeProcess
from serl_suite.nodes.run_folder import RunFolder, RunFolderError

__all__ = ["NodeFailed", "Supervisor"]

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 1.5
"""Nodes that take longer to end are killed: two seconds after a Ctrl-C both are gone, on a busy machine as well."""
HEAD_START_S = 0.5
"""Of the actors before the learner is told to end as well."""
WATCH_PERIOD_S = 0.1
FULL_BELOW_BYTES = 256 * 1024
"""A file system with less free is taken for full: not even an episode's file fits."""
MAX_RESTARTS = 10
"""Nodes killed so often without a new episode between are not started again."""


class NodeFailed(SerlError):
    """A node ended by itself with an error; the message carries its last words."""


class Supervisor:
    """Runs a learner and actors as processes over a run folder.

    Args:
        run: The run; everything already in it is taken up.
        actors: How many actor processes.
    """

    def __init__(self, run: RunFolder, *, actors: int = 1) -> None:
        self.run_folder = run
        self._actors = actors
        self._nodes: dict[str, NodeProcess] = {}
        self._restarts = 0
        self._episodes_at_restart = 0

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the nodes that were started: "learner", "actor", "actor-1", ..."""
        return {name: node.pid for name, node in self._nodes.items()}

    def train(self, stop: Event, on_tick: Callable[[], None]) -> Outcome | None:
        """Trains to the end.

        Args:
            stop: Set by Ctrl-C; both nodes then end within two seconds, data kept.
            on_tick: Called ten times a second, to redraw what people watch.

        Returns:
            How training ended; None when stopped.

        Raises:
            NodeFailed: A node could not start or died.
            RunFolderError: Another supervisor runs it.
        """
        with self._alone():
            return self._train(stop, on_tick)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the run's lock, which the kernel lets go of with the process."""
        descriptor = os.open(self.run_folder.logs / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                path = self.run_folder.path
                raise RunFolderError(
                    f"{path} is being trained by another `serl train`; stop that first"
                ) from None
            yield
        finally:
            os.close(descriptor)

    def _train(self, stop: Event, on_tick: Callable[[], None]) -> Outcome | None:
        self.run_folder.outcome.unlink(missing_ok=True)
        try:
            self._start()
            while not stop.is_set() and not self._ended():
                on_tick()
                stop.wait(WATCH_PERIOD_S)
            on_tick()
        finally:
            self._end()
        return self._outcome()

    def _start(self) -> None:
        self.run_folder.address.unlink(missing_ok=True)
        self._nodes["learner"] = self._spawn("learner")
        for number in range(self._actors):
            name = "actor" if number == 0 else f"actor-{number}"
            self._nodes[name] = self._spawn(name)

    def _spawn(self, name: str) -> NodeProcess:
        path, log_file = str(self.run_folder.path), self.run_folder.logs / f"{name}.log"
        if name == "learner":
            return NodeProcess(["learner", "--resume", path], log_file)
        return NodeProcess(["actor", "--run", path, "--number", name.partition("-")[2] or "0"], log_file)

    def _ended(self) -> bool:
        """True once the learner has ended well; a node that was killed is started again and takes up where it was.

        Raises:
            NodeFailed: A node ended with an error of its own, or is killed again and again.
        """
        if self._nodes["learner"].returncode == 0:
            if not self.run_folder.outcome.exists():
                raise NodeFailed(
                    f"the learner was ended from outside; data is kept, go on with `serl train --resume "
                    f"{self.run_folder.path}`"
                )
            return True
        for name, node in self._nodes.items():
            code = node.returncode
            ended_early = code == 0 and not self.run_folder.outcome.exists()
            if code is not None and (code < 0 or ended_early) and self._may_restart():
                log.warning("%s ended with code %d while training goes on; starting it again", name, code)
                self._nodes[name] = self._spawn(name)
            elif code not in (None, 0):
                raise NodeFailed(
                    f"{name} ended with exit code {code}{self._disk_note()}; data is kept, `serl train --resume "
                    f"{self.run_folder.path}` goes on. Its last words ({node.log}):\n{node.last_words()}"
                )
        return False

    def _may_restart(self) -> bool:
        """Counts a restart; False where the ones before have brought the run no further."""
        episodes = sum(1 for _ in self.run_folder.episodes.rglob("*.parquet"))
        if episodes > self._episodes_at_restart:
            self._restarts, self._episodes_at_restart = 0, episodes
        self._restarts += 1
        return self._restarts <= MAX_RESTARTS

    def _disk_note(self) -> str:
        """A full disk takes no last words either."""
        if shutil.disk_usage(self.run_folder.path).free >= FULL_BELOW_BYTES:
            return ""
        return ": the disk is full, free space there"

    def _end(self) -> None:
        """Actors first, while the learner is there to acknowledge their last steps."""
        began = time.monotonic()
        actors = [node for name, node in self._nodes.items() if name != "learner"]
        for node in actors:
            node.terminate()
        while any(node.returncode is None for node in actors) and time.monotonic() - began < HEAD_START_S:
            time.sleep(0.01)
        for node in self._nodes.values():
            node.terminate()
        for node in self._nodes.values():
            node.wait(max(0.0, began + STOP_TIMEOUT_S - time.monotonic()))

    def _outcome(self) -> Outcome | None:
        if not self.run_folder.outcome.exists():
            return None
        return msgspec.json.decode(self.run_folder.outcome.read_bytes(), type=Outcome)
