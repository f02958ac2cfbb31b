"""One self-contained HTML page about a run: what came out, what it took, and how to do it again."""

import base64
import html
from pathlib import Path

from serl_suite.nodes.command_line import changed_settings, settings, train_command
from serl_suite.nodes.curve import draw_curve
from serl_suite.nodes.evaluation import EvaluationResult, wilson_interval
from serl_suite.nodes.metrics import count_starts
from serl_suite.nodes.results import RunResults
from serl_suite.nodes.run_folder import RunFolder

__all__ = ["write_report"]

EMBED_BELOW_BYTES = 4_000_000
"""Films up to this size travel inside the page; larger ones are linked by relative path."""
STYLE = Path(__file__).with_name("report.css")


def write_report(folder: RunFolder) -> Path:
    """Draws curve.png and writes report.html; a run that is not finished says what is missing.

    Returns:
        Path of the page.

    Raises:
        RunFolderError: outcome.json or evaluation.json is damaged.
    """
    results = RunResults(folder)
    draw_curve(results, folder.path / "curve.png")
    sections = [
        _hero(results),
        _tiles(results),
        _missing(results),
        _curve(results),
        _cycle_time(results.evaluation),
        _reproduce(results),
        _details(results),
    ]
    page = folder.path / "report.html"
    page.write_text(_page(results, "\n".join(filter(None, sections))), encoding="utf-8")
    return page


def _page(results: RunResults, body: str) -> str:
    task, info = html.escape(results.config.task), results.folder.info
    facts = f"seed {results.config.seed}, {html.escape(info.created[:16].replace('T', ' '))}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{task}: {html.escape(_verdict(results)[1])}</title>
<style>{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<header>
<h1>{task}</h1>
<p class="muted">run <span class="mono">{html.escape(info.run_id)}</span>, {facts}</p>
</header>
{body}
</main>
</body>
</html>
"""


def _verdict(results: RunResults) -> tuple[str, str]:
    """CSS class and words."""
    if results.passed is not None:
        mark = _percent(results.config.evaluation.pass_at)
        return (
            ("good", f"Passed: at least {mark}") if results.passed else ("bad", f"Not passed: below {mark}")
        )
    if results.evaluation is not None:
        return "unsure", "Evaluated by return: this environment does not tell success"
    return "unsure", "Not evaluated yet"


def _hero(results: RunResults) -> str:
    kind, words = _verdict(results)
    lines = [f'<p class="verdict {kind}">{html.escape(words)}</p>']
    evaluation = results.evaluation
    if evaluation is None:
        lines += _progress_so_far(results)
    elif evaluation.knows_success:
        lines += _success(results, evaluation, kind)
    else:
        returns = [episode.episode_return for episode in evaluation.episodes]
        lines.append(f'<p class="figure">{_number(sum(returns) / max(len(returns), 1))}</p>')
        lines.append(
            f'<p class="muted">mean return of {len(returns)} fresh episodes, '
            f"{_number(min(returns, default=0))} to {_number(max(returns, default=0))}</p>"
        )
    film = _film(results.folder) if evaluation is not None else ""
    return f'<section class="hero{" filmed" if film else ""}"><div>{"".join(lines)}</div>{film}</section>'


def _progress_so_far(results: RunResults) -> list[str]:
    window = results.config.evaluation.window
    recent = [episode for episode in results.episodes if episode.success is not None][-window:]
    if not recent:
        return ['<p class="muted">No training episode with a known success yet.</p>']
    successes = sum(bool(episode.success) for episode in recent)
    return [
        f'<p class="figure">{successes}<small> of the last {len(recent)}</small></p>',
        '<p class="muted">training episodes succeeded, exploration noise included</p>',
    ]


def _success(results: RunResults, evaluation: EvaluationResult, kind: str) -> list[str]:
    trials, successes = len(evaluation.episodes), evaluation.successes
    low, high = wilson_interval(successes, trials)
    rate = evaluation.success_rate
    interval = f"95 % interval {_percent(low, 1)} to {_percent(high, 1)} (Wilson)"
    mark = results.config.evaluation.pass_at
    squares = "".join(
        f'<i{"" if episode.success else " class=failed"} title="episode {number + 1}: '
        f'{"success" if episode.success else "no success"} after {episode.length} steps"></i>'
        for number, episode in enumerate(evaluation.episodes)
    )
    return [
        f'<p class="figure">{successes}<small> of {trials} fresh episodes</small></p>',
        f'<p class="muted">success {_percent(rate, 1)}, {interval}</p>',
        f'<div class="interval {kind}" title="dashed: the mark to pass"><span class="band" '
        f'style="left:{low:.2%};width:{high - low:.2%}"></span><span class="point" style="left:{rate:.2%}">'
        f'</span><span class="mark" style="left:{mark:.2%}"></span></div>',
        f'<div class="scale"><span>0 %</span><span>dashed: passes at {_percent(mark)}</span><span>100 %</span></div>',
        f'<div class="outcomes">{squares}</div>',
        '<p class="caption">Every evaluated episode in order, deterministic policy, starts not seen in training.</p>',
    ]


def _film(folder: RunFolder) -> str:
    path = folder.path / "evaluation.mp4"
    if not path.exists():
        return ""
    source = _data_url(path, "video/mp4") if path.stat().st_size <= EMBED_BELOW_BYTES else path.name
    caption = "The first evaluated episodes, not selected, at the speed they happened."
    return (
        f'<div><video src="{source}" autoplay loop muted playsinline controls></video>'
        f'<p class="caption">{caption}</p></div>'
    )


def _tiles(results: RunResults) -> str:
    evaluation = results.evaluation
    tiles = [(_number(results.env_steps), "env steps")]
    if results.robot_time_s is not None:
        tiles.append((_duration(results.robot_time_s), "robot time"))
    tiles.append((_duration(results.training_time_s), "wall-clock"))
    tiles.append((_number(results.updates), "critic updates"))
    demos = (
        len(evaluation.demo_lengths) if evaluation else sum(1 for _ in results.folder.demos.glob("*.parquet"))
    )
    tiles.append((str(demos), "demonstrations"))
    if evaluation is not None and evaluation.cycle_time_s is not None:
        tiles.append((f"{evaluation.cycle_time_s:.1f} s", "cycle time"))
    cells = "".join(f"<div><b>{html.escape(value)}</b><span>{name}</span></div>" for value, name in tiles)
    return f'<section class="tiles">{cells}</section>'


def _missing(results: RunResults) -> str:
    run, notes = html.escape(str(results.folder.path)), []
    if results.outcome is None:
        notes.append(
            "Training has not ended: it is still running, or was stopped. "
            f"Go on: <code>serl train --resume {run}</code>"
        )
    if not results.learner:
        notes.append("The learner has logged nothing yet; its log is <code>logs/learner.log</code>.")
    if not results.episodes:
        notes.append(
            "No training episode is logged: none has ended yet (see <code>logs/actor.log</code>), or the actor ran on "
            "another machine; copy its <code>actor.jsonl</code> into <code>metrics/</code> then."
        )
    if results.evaluation is None:
        notes.append(f"There is no evaluation. Measure the policy: <code>serl eval {run}</code>")
    elif not (results.folder.path / "evaluation.mp4").exists():
        notes.append("There is no film: the environment renders no pictures here, or filming was turned off.")
    if not notes:
        return ""
    items = "".join(f"<li>{note}</li>" for note in notes)
    return f'<section><h2>What is missing</h2><ul class="missing">{items}</ul></section>'


def _curve(results: RunResults) -> str:
    if not results.learner and not results.episodes:
        return ""
    source = _data_url(results.folder.path / "curve.png", "image/png")
    caption = ""
    if results.knows_success:
        caption = (
            "Ticks above and below: training episodes that succeeded and that did not. "
            "The line is the success rate of the "
            f"last {results.config.evaluation.window}, exploration noise included."
        )
    ended = f" Training ended: {html.escape(results.outcome.reason)}." if results.outcome else ""
    return (
        f'<section><h2>Learning curve</h2><img class="curve" src="{source}" alt="learning curve">'
        f'<p class="caption">{caption}{ended}</p></section>'
    )


def _cycle_time(evaluation: EvaluationResult | None) -> str:
    if evaluation is None or evaluation.cycle_time_s is None or evaluation.demo_cycle_time_s is None:
        return ""
    policy_s, demos_s = evaluation.cycle_time_s, evaluation.demo_cycle_time_s
    longest = max(policy_s, demos_s)
    rows = "".join(
        f'<span>{name}</span><div class="bar{extra}" style="width:{value / longest:.1%}"></div>'
        f"<span>{value:.2f} s</span>"
        for name, extra, value in (("policy", "", policy_s), ("demonstrations", " other", demos_s))
    )
    return (
        f"<section><h2>Cycle time: {policy_s / demos_s:.2f} times the demonstrations'</h2>"
        f'<div class="bars">{rows}</div>'
        '<p class="caption">Mean robot time from reset to success: successful evaluated episodes against the '
        f"{len(evaluation.demo_lengths)} demonstrations.</p></section>"
    )


def _reproduce(results: RunResults) -> str:
    config = results.config
    run = html.escape(str(results.folder.path))
    return (
        f"<section><h2>Do it again</h2><pre>{html.escape(train_command(config))}\nserl eval {run}</pre>"
        f'<p class="caption">{_repeats(results)}</p></section>'
    )


def _repeats(results: RunResults) -> str:
    """How exactly the same command gives the same run."""
    config, metrics = results.config, results.folder.metrics
    if config.actor.pace != "lockstep" or config.learner.device != "cpu" or config.actors > 1:
        return "Paced by the clock, on a GPU or with several actors, a run repeats in distribution, not bit for bit."
    starts = max(count_starts(metrics, "learner"), count_starts(metrics, "actor"))
    if starts > 1 or results.outcome is None:
        return "This run was interrupted; from beginning to end, it repeats in distribution, not bit for bit."
    return "In lockstep on a CPU, uninterrupted, the same versions give the same run bit for bit."


def _details(results: RunResults) -> str:
    config, info = results.config, results.folder.info
    changed = {*changed_settings(config), ("task",)}
    groups: dict[str, list[str]] = {}
    for path, value in settings(config).items():
        mark = ' class="changed"' if path in changed else ""
        row = f"<tr{mark}><td>{html.escape(path[-1])}</td><td>{html.escape(_setting(value))}</td></tr>"
        groups.setdefault(path[0] if len(path) > 1 else "run", []).append(row)
    groups["versions"] = [
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(version)}</td></tr>"
        for name, version in info.versions.items()
    ]
    groups["machine"] = [f'<tr><td class="whole">{html.escape(info.machine)}</td></tr>']
    tables = "".join(
        f"<table><caption>{html.escape(name)}</caption>{''.join(rows)}</table>"
        for name, rows in groups.items()
    )
    return (
        f'<section><h2>Configuration and versions</h2><div class="columns">{tables}</div>'
        '<p class="caption">Blue: differs from the default.</p></section>'
    )


def _setting(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unset" if value is None else str(value)


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _number(value: float) -> str:
    return (
        f"{value:,.0f}".replace(",", " ")
        if abs(value) >= 1000 or float(value).is_integer()
        else f"{value:.3g}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _data_url(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
