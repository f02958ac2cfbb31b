"""What people watch while a run trains: one screen in a terminal, plain lines elsewhere."""

import itertools
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from serl_suite.cli.training_state import TrainingState
from serl_suite.nodes.run_folder import RunFolder

__all__ = ["LiveView"]

REDRAW_PERIOD_S = 0.25
LINE_PERIOD_S = 5.0
SPARK = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 32
STOPPING, STOPPED, ENDED = "stopping", "stopped", "ended"
FEET = {STOPPING: "Both processes end; everything is kept.", STOPPED: "", ENDED: ""}
"""Below the figures, by phase; of all others: how to stop."""
KEYS = "s: success, f: failure. "
"""For who judges by keys (rewards/keys.py)."""


class LiveView:
    """Shows a run while it trains; a context manager, to be told `update()` about ten times a second.

    Args:
        folder: Of the run.
        stop: Once it is set, the view says at once that the run is being stopped.
        console: Where to draw; standard output by default.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        folder: RunFolder,
        stop: Event,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = folder.path
        self._stop = stop
        self._said_stopping = False
        self._state = TrainingState(folder)
        self._console = console or Console()
        self._clock = clock
        self._started = clock()
        self._due = self._started
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None

    def __enter__(self) -> "LiveView":
        if self._live is not None:
            self._live.start()
        self.update()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._draw(STOPPED if self._stop.is_set() else ENDED)
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        """Redraws where it is time to."""
        if self._stop.is_set() and not self._said_stopping:
            self._said_stopping = True
            self._draw(STOPPING)
        elif self._clock() >= self._due:
            self._due = self._clock() + (LINE_PERIOD_S if self._live is None else REDRAW_PERIOD_S)
            self._draw()

    def _draw(self, phase: str | None = None) -> None:
        self._state.read()
        phase = phase or self._state.phase
        elapsed_s = self._state.earlier_s + self._clock() - self._started
        if self._live is None:
            print(line(self._state, phase, elapsed_s), file=self._console.file, flush=True)
        else:
            self._live.update(screen(self._state, phase, self._path, elapsed_s), refresh=True)


def line(state: TrainingState, phase: str, elapsed_s: float) -> str:
    """One line of plain text."""
    parts = [f"{duration(elapsed_s):>8}", phase, f"step {state.env_steps}/{state.config.max_steps}"]
    if state.recent:
        parts.append(f"success {sum(state.recent)}/{len(state.recent)}")
    for name, label in (
        ("critic/loss", "critic loss"),
        ("critic/q", "Q"),
        ("learner/updates_per_s", "updates/s"),
    ):
        if state.value(name) is not None:
            parts.append(f"{label} {number(state.value(name))}")
    if state.last_evaluation is not None:
        parts.append(f"evaluated {100 * state.last_evaluation[0]:.0f} % at step {state.last_evaluation[1]}")
    if state.eta_s is not None:
        parts.append(f"ETA {duration(state.eta_s)}")
    return "  ".join(parts)


def screen(state: TrainingState, phase: str, path: Path, elapsed_s: float) -> RenderableType:
    """The whole screen, about 15 lines of 80 columns."""
    head = Table.grid(expand=True)
    head.add_column(no_wrap=True, ratio=1)
    head.add_column(justify="right", no_wrap=True)
    head.add_row(
        Text(state.config.task, style="bold"),
        Text(f"{phase}, {duration(elapsed_s)}", style="bold cyan"),
    )
    head.add_row(Text(str(path), style="dim", overflow="ellipsis"), "")
    keys = KEYS if state.config.reward.partition(":")[0] == "key" else ""
    foot = Text(FEET.get(phase, f"{keys}Ctrl-C stops and keeps everything."), style="dim")
    return Padding(Group(head, Text(), _progress(state), Text(), _figures(state), Text(), foot), (1, 2, 0, 2))


def _progress(state: TrainingState) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_row(
        Text("success", style="dim"), _success(state), Text.assemble((_sparkline(state.rates), "green"))
    )
    bar = ProgressBar(total=state.config.max_steps, completed=state.env_steps, width=SPARK_WIDTH)
    count = f"{state.env_steps:,} of {state.config.max_steps:,}".replace(",", " ")
    table.add_row(Text("env steps", style="dim"), Text(count), bar)
    eta = "" if state.eta_s is None else f"{duration(state.eta_s)} to the end of the budget at most"
    table.add_row(
        Text("robot time", style="dim"),
        Text("" if state.robot_time_s is None else duration(state.robot_time_s)),
        Text(eta),
    )
    table.add_row(Text("evaluation", style="dim"), *_evaluation(state))
    return table


def _success(state: TrainingState) -> Text:
    if state.recent:
        rate = sum(state.recent) / len(state.recent)
        return Text.assemble(
            (f"{100 * rate:3.0f} %", "bold"), f"  {sum(state.recent)} of the last {len(state.recent)}"
        )
    value = state.value("episode/return")
    return Text("no episode yet" if value is None else f"not told; last return {number(value)}")


def _evaluation(state: TrainingState) -> tuple[Text, Text]:
    settings = state.config.evaluation
    if state.last_evaluation is None:
        rule = f"from {100 * settings.attempt_at:.0f} % success on, deterministically"
        return Text("none yet"), Text(rule, style="dim")
    rate, at = state.last_evaluation
    style = "bold green" if rate >= settings.attempt_pass_at else "bold"
    return Text(f"{100 * rate:3.0f} % at step {at}", style=style), Text(
        f"ends training at {100 * settings.attempt_pass_at:g} %", style="dim"
    )


def _figures(state: TrainingState) -> Table:
    columns = (
        (
            "learning",
            ("critic loss", "critic/loss"),
            ("Q", "critic/q"),
            ("temperature", "actor/temperature"),
        ),
        (
            "speed",
            ("updates/s", "learner/updates_per_s"),
            ("realised UTD", "learner/realised_utd"),
            ("env steps/s", "learner/steps_per_s"),
        ),
        (
            "learner lag",
            ("updates owed", "learner/updates_owed"),
            ("policy staleness", "actor/policy_staleness"),
            ("unacknowledged", "actor/unacknowledged"),
        ),
    )
    table = Table.grid(padding=(0, 4), expand=False)
    for _ in columns:
        table.add_column(no_wrap=True)
    cells = []
    for title, *rows in columns:
        cell = Table.grid(padding=(0, 1))
        cell.add_column(min_width=12)
        cell.add_column(justify="right", min_width=7)
        cell.add_row(Text(title, style="bold"), "")
        for label, name in rows:
            cell.add_row(Text(label, style="dim"), number(state.value(name)))
        cells.append(cell)
    table.add_row(*cells)
    return table


def _sparkline(rates: list[float]) -> str:
    """Rates in [0, 1] as at most `SPARK_WIDTH` blocks, each the mean of its share."""
    width = min(SPARK_WIDTH, len(rates))
    edges = [len(rates) * column // max(width, 1) for column in range(width + 1)]
    means = [statistics.fmean(rates[low:high]) for low, high in itertools.pairwise(edges)]
    return "".join(SPARK[min(int(mean * len(SPARK)), len(SPARK) - 1)] for mean in means)


def duration(seconds: float) -> str:
    """For example 47 s, 3:05 min or 1:02:00 h."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d} h"
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"


def number(value: float | None) -> str:
    """At most three figures that matter; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
