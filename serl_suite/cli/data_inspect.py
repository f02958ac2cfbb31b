"""`serl data inspect`: what is in episode files."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
import tyro

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from serl_suite.data.episodes import Episode
    from serl_suite.wire.spaces import EnvSpec

__all__ = ["run"]

DESCRIPTION = """Show what is in episode files, folders of them, or runs.

  serl data inspect demos/FrankaPickCube-v0
  serl data inspect runs/FrankaPickCube-v0-20260101-120000
  serl data inspect demos/a/000000.parquet demos/b

Of a run, demonstrations and training episodes are shown apart. A damaged file is named and passed over; the exit
code is then 1."""

EXIT_DAMAGED = 1


class _Arguments(msgspec.Struct, frozen=True, kw_only=True):
    path: Annotated[Path, tyro.conf.Positional]
    """Episode file, folder or run."""
    more: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Any number of others."""


class _Range:
    """Smallest, mean and largest value of one array over all steps."""

    def __init__(self) -> None:
        self.low, self.high, self.total, self.count = np.inf, -np.inf, 0.0, 0

    def add(self, array: np.ndarray) -> None:
        if array.size:
            self.low, self.high = min(self.low, float(array.min())), max(self.high, float(array.max()))
            self.total, self.count = self.total + float(array.sum(dtype=np.float64)), self.count + array.size


class _Summary:
    """What is kept of the episodes of one place; their arrays are not."""

    def __init__(self, spec: "EnvSpec") -> None:
        self.spec = spec
        self.tasks: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.lengths: list[int] = []
        self.returns: list[float] = []
        self.successes: list[bool | None] = []
        self.interventions = self.cut_off = 0
        self.ranges = {f"observation/{key}": _Range() for key in spec.observation} | {"action": _Range()}

    def add(self, episode: "Episode") -> None:
        """Counts one more."""
        self.tasks[episode.spec.task] += 1
        self.lengths.append(len(episode))
        self.returns.append(episode.episode_return)
        known = any(step.success is not None for step in episode.steps)
        self.successes.append(episode.success if known else None)
        self.cut_off += not episode.steps[-1].ends_episode
        for step in episode.steps:
            for key, array in step.observation.items():
                self.ranges[f"observation/{key}"].add(array)
            if step.action is not None:
                self.ranges["action"].add(step.action)
                self.sources[step.source] += 1
                self.interventions += step.intervention


def run(arguments: Sequence[str]) -> int:
    """Prints tables; 0, or 1 where a file is damaged or nothing is there."""
    chosen = tyro.cli(_Arguments, args=list(arguments), prog="serl data inspect", description=DESCRIPTION)
    from rich.console import Console

    console, code = Console(markup=False, emoji=False), 0
    for path in (chosen.path, *chosen.more):
        for place in _places(path):
            code = max(code, _inspect(place, console))
    return code


def _places(path: Path) -> list[Path]:
    """A run's demonstrations and training episodes, or the path itself."""
    if not (path / "run.json").exists():
        return [path]
    return [place for place in (path / "demos", path / "episodes") if any(place.rglob("*.parquet"))] or [path]


def _inspect(place: Path, console: "Console") -> int:
    """Prints the tables of one place; episodes with other spaces than the first get tables of their own."""
    from rich.text import Text

    from serl_suite.data.episodes import CorruptEpisode, read_episode

    files = sorted(place.rglob("*.parquet")) if place.is_dir() else [place]
    summaries: list[_Summary] = []
    damaged = 0
    for file in files:
        try:
            episode = read_episode(file)
        except CorruptEpisode as error:
            damaged += 1
            print(f"serl data inspect: {error}", file=sys.stderr)  # noqa: T201
            continue
        fitting = next(
            (summary for summary in summaries if summary.spec.difference(episode.spec) is None), None
        )
        if fitting is None:
            fitting = _Summary(episode.spec)
            summaries.append(fitting)
        fitting.add(episode)
    if not files:
        print(f"serl data inspect: no episodes (*.parquet) in {place}; check the path", file=sys.stderr)  # noqa: T201
    for summary in summaries:
        console.print()
        console.print(Text(str(place), style="bold"))
        console.print(_episode_table(summary, damaged))
        console.print(_array_table(summary))
    return EXIT_DAMAGED if damaged or not files else 0


def _episode_table(summary: _Summary, damaged: int) -> "Table":
    from rich.table import Table

    steps, rate_hz = sum(summary.lengths), summary.spec.rate_hz
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    table.add_row("task", ", ".join(f"{task}" for task in sorted(summary.tasks)))
    note = f", {summary.cut_off} of them cut off" if summary.cut_off else ""
    note += f"; {damaged} more damaged" if damaged else ""
    table.add_row("episodes", f"{len(summary.lengths)}{note}")
    table.add_row(
        "steps",
        f"{steps}, {_duration(steps / rate_hz)} of robot time at {rate_hz:g} Hz",
    )
    known = [success for success in summary.successes if success is not None]
    success = f"{sum(known)} of {len(known)} ({100 * sum(known) / len(known):.0f} %)" if known else "not told"
    table.add_row("success", success)
    table.add_row("length", f"{_spread(summary.lengths)} steps")
    table.add_row("return", _spread(summary.returns))
    shares = [
        f"{source} {100 * count / max(steps, 1):.0f} %" for source, count in summary.sources.most_common()
    ]
    table.add_row("actions by", ", ".join(shares) or "nobody")
    table.add_row("interventions", f"{summary.interventions} steps")
    return table


def _array_table(summary: _Summary) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("array", "shape", "dtype"):
        table.add_column(column, no_wrap=True)
    for column in ("min", "mean", "max"):
        table.add_column(column, justify="right", no_wrap=True)
    specs = {f"observation/{key}": spec for key, spec in sorted(summary.spec.observation.items())}
    for name, spec in (specs | {"action": summary.spec.action}).items():
        seen = summary.ranges[name]
        figures = (seen.low, seen.total / seen.count, seen.high) if seen.count else ()
        table.add_row(name, str(spec.shape), spec.dtype, *(f"{figure:.4g}" for figure in figures))
    return table


def _spread(values: Sequence[float]) -> str:
    low, middle, high = min(values), float(np.median(values)), max(values)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}, median {middle:.4g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
