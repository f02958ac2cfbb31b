"""The passivity study as a table (JSON and markdown) and two pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import msgspec
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from serl_suite.nodes.curve import STYLE
from serl_suite.nodes.evaluation import wilson_interval
from serl_suite.nodes.passivity_study import Arm, ArmResult, EpisodeRecord
from serl_suite.nodes.results import rolling_mean

__all__ = ["Row", "summarise", "table", "write_report"]

WINDOW = 20
"""Training episodes in a rolling mean."""
PANELS: tuple[tuple[str, Callable[[EpisodeRecord], float]], ...] = (
    ("success rate", lambda record: float(record.success)),
    ("violating steps an episode", lambda record: float(record.violations)),
    ("energy used [J]", lambda record: record.energy_j),
    ("peak contact force [N]", lambda record: record.peak_force_n),
)
COLOURS = {
    "agnostic-off": "#b23a48",
    "agnostic-on": "#d98c5f",
    "aware-off": "#5b8e7d",
    "aware-on": "#1f5fae",
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """An arm's evaluation, over all seeds."""

    arm: str
    seeds: int
    episodes: int
    success_rate: float
    success_interval: tuple[float, float]
    """95 %, Wilson."""
    violations: float
    """Violating steps an episode, mean."""
    violating_episodes: int
    energy_j: float
    """Mean of an episode."""
    energy_success_j: float | None
    """Mean of a successful episode; None without one."""
    peak_force_n: float
    """Mean of the episodes' peaks."""
    training_violations: int
    """Violating steps in all of training."""


def summarise(results: Sequence[ArmResult]) -> list[Row]:
    """A row for each arm that has a result."""
    rows = []
    for name, group in _by_arm(results).items():
        episodes = [record for result in group for record in result.evaluation]
        training = [record for result in group for record in result.training]
        count, successes = len(episodes), sum(record.success for record in episodes)
        won = [record.energy_j for record in episodes if record.success]
        rows.append(
            Row(
                arm=name, seeds=len(group), episodes=count, success_rate=successes / count,
                success_interval=wilson_interval(successes, count),
                violations=float(np.mean([record.violations for record in episodes])),
                violating_episodes=sum(record.violations > 0 for record in episodes),
                energy_j=float(np.mean([record.energy_j for record in episodes])),
                energy_success_j=float(np.mean(won)) if won else None,
                peak_force_n=float(np.mean([record.peak_force_n for record in episodes])),
                training_violations=sum(record.violations for record in training),
            )
        )  # fmt: skip
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as markdown."""
    lines = [
        "| arm | success | violating steps an episode | episodes that violate | energy [J] | of a success [J] "
        "| peak force [N] | violating steps in training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row.success_interval
        success = f"{100 * row.success_rate:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
        of_success = "" if row.energy_success_j is None else f"{row.energy_success_j:.2f}"
        lines.append(
            f"| {row.arm} | {success} | {row.violations:.2f} | {row.violating_episodes} of {row.episodes} "
            f"| {row.energy_j:.2f} | {of_success} | {row.peak_force_n:.1f} | {row.training_violations} |"
        )
    return "\n".join(lines)


def write_report(results: Sequence[ArmResult], folder: Path) -> list[Row]:
    """Writes table.json, table.md, evaluation.png and training.png, and returns the rows."""
    rows = summarise(results)
    settings = results[0].settings
    head = (
        f"# Passivity study on {settings.task}\n\n{settings.steps} env steps of training, {settings.utd} updates each, "
        f"{settings.demo_episodes} demonstrations, aware by {settings.form}; off and on: the passivity filter, in "
        "training and evaluation. Success with its 95 % interval.\n\n"
    )
    (folder / "table.md").write_text(f"{head}{table(rows)}\n", encoding="utf-8")
    document = msgspec.json.encode({"settings": settings, "rows": rows})
    (folder / "table.json").write_bytes(msgspec.json.format(document))
    with mpl.rc_context(STYLE):
        _draw_evaluation(results).savefig(folder / "evaluation.png")
        _draw_training(results).savefig(folder / "training.png")
    return rows


def _draw_evaluation(results: Sequence[ArmResult]) -> Figure:
    """A bar for each arm's mean, its episodes as dots."""
    figure = _figure()
    arms = _by_arm(results)
    for place, (title, value) in enumerate(PANELS):
        axes = figure.add_subplot(1, len(PANELS), place + 1, title=title)
        for x, (name, group) in enumerate(arms.items()):
            values = np.array([value(record) for result in group for record in result.evaluation])
            axes.bar(x, values.mean(), color=COLOURS[name], alpha=0.85, width=0.7)
            if place > 0:
                spread = np.linspace(-0.25, 0.25, len(values))
                axes.plot(x + spread, values, ".", color="#17212b", markersize=2.5, alpha=0.5)
        axes.set_xticks(range(len(arms)), [name.replace("-", "\n") for name in arms])
    return figure


def _draw_training(results: Sequence[ArmResult]) -> Figure:
    """Rolling means over training, a line for each arm and seed."""
    figure = _figure()
    for place, (title, value) in enumerate(PANELS):
        axes = figure.add_subplot(1, len(PANELS), place + 1, title=title, xlabel="env steps")
        for name, group in _by_arm(results).items():
            for number, result in enumerate(group):
                steps = np.cumsum([record.length for record in result.training])
                means = rolling_mean([value(record) for record in result.training], WINDOW)
                axes.plot(steps, means, color=COLOURS[name], label=name if number == 0 else None)
        if place == 0:
            axes.legend()
    return figure


def _figure() -> Figure:
    figure = Figure(figsize=(12, 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _by_arm(results: Sequence[ArmResult]) -> dict[str, list[ArmResult]]:
    groups: dict[str, list[ArmResult]] = {}
    for result in results:
        groups.setdefault(Arm(result.aware, result.filtered).name, []).append(result)
    return groups
