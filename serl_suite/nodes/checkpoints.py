"""A learner's checkpoints, written by a thread while it trains on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from serl_suite.agents.snapshot import Snapshot
from serl_suite.data.checkpoint import save_checkpoint

__all__ = ["Checkpoints"]


class Checkpoints:
    """Writes one checkpoint at a time, each only once all steps that it counts are durable.

    Args:
        path: Of the file, which each of them replaces.
        flush: Waits until every step that was received is durable; False where it cannot be.
    """

    def __init__(self, path: Path, flush: Callable[[], bool]) -> None:
        self._path, self._flush = path, flush
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    @property
    def is_writing(self) -> bool:
        """Whether one is under way.

        Raises:
            DiskFull: The one before could not be written; what was there before it is untouched.
        """
        if self._writing is not None and self._writing.done():
            self.wait()
        return self._writing is not None

    def begin(self, snapshot: Snapshot, meta: dict[str, Any]) -> None:
        """Writes this one next, after the one that is under way."""
        self.wait()
        self._writing = self._thread.submit(self._write, snapshot, meta)

    def wait(self) -> None:
        """Returns once none is under way.

        Raises:
            DiskFull: It could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, snapshot: Snapshot, meta: dict[str, Any]) -> None:
        """Where a step cannot be made durable, the checkpoint before stays."""
        if self._flush():
            save_checkpoint(self._path, snapshot.tensors(), meta)
