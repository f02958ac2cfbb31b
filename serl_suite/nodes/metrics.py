"""Metrics of a node: one JSON line per record, and the same numbers to TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import msgspec
from torch.utils.tensorboard import SummaryWriter

__all__ = ["MetricsWriter", "count_starts", "read_metrics"]


class MetricsWriter:
    """Appends records to `<folder>/<node>.jsonl` and `<folder>/tensorboard/<node>`.

    Args:
        folder: The run's metrics folder.
        node: "learner" or "actor".
    """

    def __init__(self, folder: Path, node: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = (folder / f"{node}.jsonl").open("ab")
        self._tensorboard = SummaryWriter(str(folder / "tensorboard" / node))

    def write(self, env_steps: int, record: Mapping[str, float | int | bool | None]) -> None:
        """Writes one record, with `env_steps` as its abscissa; what is None is left out, True is 1."""
        numbers = {name: float(value) for name, value in record.items() if value is not None}
        self._lines.write(msgspec.json.encode({"env_steps": env_steps, **numbers}) + b"\n")
        self._lines.flush()
        for name, value in numbers.items():
            self._tensorboard.add_scalar(name, value, env_steps)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.close()
        self._tensorboard.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Returns the records of a JSONL file; a torn last line, as a killed process leaves it, is passed over."""
    if not path.exists():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        try:
            records.append(msgspec.json.decode(line, type=dict[str, float]))
        except msgspec.DecodeError:
            continue
    return records


def count_starts(folder: Path, node: str) -> int:
    """Returns how often a node has opened its metrics: each time, TensorBoard begins a file."""
    return sum(1 for _ in (folder / "tensorboard" / node).glob("events.*"))
