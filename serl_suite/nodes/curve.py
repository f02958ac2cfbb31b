"""The learning curve of a run as one picture."""

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from serl_suite.nodes.evaluation import wilson_interval
from serl_suite.nodes.results import RunResults, rolling_mean

__all__ = ["draw_curve"]

INK, MUTED, HAIRLINE = "#17212b", "#66727f", "#dde2e8"
TRAINING, EVALUATION, FAILURE = "#1f5fae", "#d9501c", "#b9c2cc"
RING_SIZE, DISC_SIZE = 11, 5
"""Points. Where the evaluation that ended training and the last one coincide, the disc lies inside the ring."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": HAIRLINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": HAIRLINE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}
SMALL_PANELS = (
    ("critic/loss", "critic loss", "log"),
    ("critic/q", "Q", "linear"),
    ("actor/temperature", "temperature", "log"),
)


def draw_curve(results: RunResults, path: Path) -> None:
    """Draws success (or return, where success is not known), critic loss, Q and temperature over env steps.

    Args:
        results: Of any run, however short.
        path: Receives a PNG of 1600 x 960 pixels.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 6), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 3, height_ratios=(2.4, 1), hspace=0.06)
        end = max(results.env_steps, 1) * 1.02
        main = figure.add_subplot(grid[0, :])
        if results.knows_success:
            _draw_success(main, results)
        else:
            _draw_returns(main, results)
        main.set_xlabel("env steps")
        _count_axis(main, end)
        for column, (name, title, scale) in enumerate(SMALL_PANELS):
            axes = figure.add_subplot(grid[1, column])
            _draw_panel(axes, results, name, title, scale)
            _count_axis(axes, end, ticks=4)
        figure.savefig(path)


def _draw_success(axes: Axes, results: RunResults) -> None:
    settings = results.config.evaluation
    episodes = [episode for episode in results.episodes if episode.success is not None]
    steps = [episode.env_steps for episode in episodes]
    rates = rolling_mean([float(bool(episode.success)) for episode in episodes], settings.window)
    axes.plot(steps, rates, color=TRAINING, linewidth=1.8, label=f"training, last {settings.window} episodes")
    for success, height, colour in ((True, 1.045, TRAINING), (False, -0.045, FAILURE)):
        at = [episode.env_steps for episode in episodes if episode.success is success]
        axes.plot(at, [height] * len(at), "|", color=colour, markersize=4, markeredgewidth=0.7)
    if results.attempts:
        attempted = [step for step, _ in results.attempts]
        measured = [rate for _, rate in results.attempts]
        label = f"evaluation while training, {settings.attempt_episodes} episodes"
        axes.plot(
            attempted,
            measured,
            "o",
            markerfacecolor="none",
            markeredgecolor=EVALUATION,
            markeredgewidth=1.4,
            markersize=RING_SIZE,
            zorder=5,
            label=label,
        )
    if results.evaluation is not None:
        _draw_final(axes, results)
    axes.axhline(settings.pass_at, color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    axes.annotate(
        f"passes at {100 * settings.pass_at:.0f} %",
        (0, settings.pass_at),
        xytext=(4, -3),
        textcoords="offset points",
        va="top",
        color=MUTED,
        fontsize=8,
    )
    axes.set_ylim(-0.075, 1.075)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.set_title("Success", fontsize=12, fontweight="bold", pad=10)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderpad=0, handlelength=1.2)


def _draw_final(axes: Axes, results: RunResults) -> None:
    """The last evaluation with its 95 % interval, where training ended."""
    evaluation = results.evaluation
    assert evaluation is not None
    trials = len(evaluation.episodes)
    low, high = wilson_interval(evaluation.successes, trials)
    rate = evaluation.success_rate
    axes.errorbar(
        [results.env_steps],
        [rate],
        yerr=[[max(0.0, rate - low)], [max(0.0, high - rate)]],
        fmt="o",
        color=EVALUATION,
        markersize=DISC_SIZE,
        capsize=3,
        linewidth=1.4,
        zorder=4,
        label=f"final policy, {evaluation.successes} of {trials}, 95 % interval",
    )


def _draw_returns(axes: Axes, results: RunResults) -> None:
    episodes, window = results.episodes, results.config.evaluation.window
    steps = [episode.env_steps for episode in episodes]
    returns = [episode.episode_return for episode in episodes]
    axes.plot(steps, returns, ".", color=FAILURE, markersize=4, label="training episode")
    axes.plot(steps, rolling_mean(returns, window), color=TRAINING, linewidth=1.8, label=f"mean of {window}")
    if results.evaluation is not None and results.evaluation.episodes:
        measured = [episode.episode_return for episode in results.evaluation.episodes]
        mean = sum(measured) / len(measured)
        axes.plot([results.env_steps], [mean], "o", color=EVALUATION, markersize=7, label="final policy")
    axes.set_title("Return of an episode", fontsize=12, fontweight="bold", pad=10)
    if episodes:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderpad=0, handlelength=1.2)


def _draw_panel(axes: Axes, results: RunResults, name: str, title: str, scale: str) -> None:
    records = [record for record in results.learner if record.get(name) is not None]
    values = [record[name] for record in records]
    axes.set_title(title, color=MUTED)
    axes.plot([record["env_steps"] for record in records], values, color=TRAINING, linewidth=1.1)
    if scale == "log" and values and 0 < 5 * min(values) < max(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator(_log_ticks(min(values), max(values))))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in the range, with their 2 and 5 where that leaves few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 3 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return [tick for tick in ticks if 0.95 * low <= tick <= 1.05 * high]


def _count_axis(axes: Axes, end: float, ticks: int = 9) -> None:
    axes.set_xlim(0, end)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace(",", " ")))
