"""A classifier's held-out report: one HTML page, its pictures and its figures as files beside it."""

import base64
import html
from collections.abc import Callable
from datetime import date
from pathlib import Path

import cv2
import matplotlib as mpl
import msgspec
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from serl_suite.nodes.curve import STYLE
from serl_suite.nodes.report import STYLE as PAGE_STYLE
from serl_suite.rewards.calibration import choose_threshold, rates_at, roc
from serl_suite.rewards.classifier import RewardModel
from serl_suite.rewards.frames import Frames
from serl_suite.rewards.scores import Scores

__all__ = ["contact_sheet", "write_reward_report"]

SUCCESS, FAILURE, MUTED = "#1f5fae", "#d9501c", "#66727f"
TARGETS = (0.1, 0.02, 0.01, 0.005, 0.002, 0.001)
"""False positive rates in the table of thresholds."""
SHOWN = 24
"""Wrong frames on the contact sheet, the most certain ones first."""
COLUMNS, CAPTION_PIXELS, GAP_PIXELS, TILE_PIXELS = 4, 34, 6, 128
"""Pictures are enlarged to tiles of that height or more."""


def write_reward_report(model: RewardModel, frames: Frames, scores: Scores, folder: Path) -> Path:
    """Writes report.html, figures.png, wrong.png and report.json.

    Args:
        model: The classifier.
        frames: That were judged.
        scores: What came of it.
        folder: Made where it is not there.

    Returns:
        Path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _draw(model, scores, folder / "figures.png")
    sheet = contact_sheet(frames, scores)
    wrong = folder / "wrong.png"
    wrong.unlink(missing_ok=True)
    if sheet is not None:
        cv2.imwrite(str(wrong), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    figures = {"threshold": model.card.threshold, "temperature": model.card.temperature, **scores.summary()}
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    page = folder / "report.html"
    places = sorted({str(clip.path.parent) for clip in frames.clips})
    page.write_text(_page(model, scores, places, folder), encoding="utf-8")
    return page


def contact_sheet(frames: Frames, scores: Scores) -> npt.NDArray[np.uint8] | None:
    """The wrong frames with all their cameras, side by side; None where there are none.

    Shape: (height, width, 3), RGB
    """
    which = np.flatnonzero(scores.wrong)
    if not which.size:
        return None
    certainty = np.where(scores.succeeded, 1.0 - scores.probability, scores.probability)
    which = which[np.argsort(-certainty[which], kind="stable")][:SHOWN]
    places = [(clip, row) for clip in frames.clips for row in range(len(clip.labels))]
    tiles = []
    for k in which:
        clip, row = places[k]
        strip = np.concatenate([clip.pictures[camera][row] for camera in clip.pictures], axis=1)
        times = -(-TILE_PIXELS // strip.shape[0])
        strip = strip.repeat(times, 0).repeat(times, 1)
        tile = np.full((strip.shape[0] + CAPTION_PIXELS, strip.shape[1], 3), 255, np.uint8)
        tile[: strip.shape[0]] = strip
        truth = "success taken for failure" if scores.succeeded[k] else "failure taken for success"
        for line, text in enumerate(
            (f"{truth}, p {scores.probability[k]:.3f}", f"{clip.path.stem}, step {clip.places[row]}")
        ):
            cv2.putText(
                tile, text, (2, strip.shape[0] + 13 + 15 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (23, 33, 43),
                1, cv2.LINE_AA,
            )  # fmt: skip
        tiles.append(
            cv2.copyMakeBorder(tile, 0, GAP_PIXELS, 0, GAP_PIXELS, cv2.BORDER_CONSTANT, value=(255,) * 3)
        )
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % min(COLUMNS, len(tiles)))
    columns = min(COLUMNS, len(tiles))
    rows = [np.concatenate(tiles[k : k + columns], axis=1) for k in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def _draw(model: RewardModel, scores: Scores, path: Path) -> None:
    panels: tuple[tuple[str, Callable[[Axes, RewardModel, Scores], None]], ...] = (
        ("ROC, false positives on a logarithmic axis", _draw_roc),
        ("reliability", _draw_reliability),
        ("frames by probability of success", _draw_histogram),
        ("confusion [frames]", _draw_confusion),
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 7), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (title, draw) in zip(figure.subplots(2, 2).flat, panels, strict=True):
            axes.set_title(title)
            draw(axes, model, scores)
        figure.savefig(path)


def _draw_roc(axes: Axes, model: RewardModel, scores: Scores) -> None:
    false, true, area = roc(scores.probability, scores.succeeded)
    smallest = 0.5 / max(1, (~scores.succeeded).sum())
    axes.step(np.maximum(false, smallest), true, where="post", color=SUCCESS, linewidth=1.8)
    at = max(scores.false_positive_rate, smallest), scores.true_positive_rate
    axes.plot(*at, "o", color=FAILURE, label=f"threshold {model.card.threshold:.3f}")
    axes.set_xscale("log")
    axes.set_xlim(smallest * 0.7, 1.0)
    axes.set_ylim(0.0, 1.03)
    axes.set_xlabel("false positive rate (left edge: none)")
    axes.set_ylabel("true positive rate")
    title = f"area {area:.4f}" if np.isfinite(area) else "no area: frames of one kind only"
    axes.legend(title=title, loc="lower right")


def _draw_reliability(axes: Axes, model: RewardModel, scores: Scores) -> None:
    bins = scores.calibration
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    seen = bins.counts > 0
    sizes = 12 + 120 * np.sqrt(bins.counts[seen] / bins.counts.max())
    axes.scatter(bins.predicted[seen], bins.observed[seen], sizes, color=SUCCESS, alpha=0.8)
    axes.set_xlabel("predicted probability of success")
    axes.set_ylabel("share of successes")
    axes.text(
        0.97, 0.09, ha="right", s=f"calibration error {bins.error:.3f}", transform=axes.transAxes,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
    )  # fmt: skip


def _draw_histogram(axes: Axes, model: RewardModel, scores: Scores) -> None:
    edges = np.linspace(0, 1, 31).tolist()
    kinds = ((~scores.succeeded, FAILURE, "failures"), (scores.succeeded, SUCCESS, "successes"))
    for which, colour, name in kinds:
        axes.hist(scores.probability[which], edges, color=colour, alpha=0.6, label=name)
    axes.axvline(model.card.threshold, color=MUTED, linestyle="--", linewidth=1)
    axes.set_yscale("log")
    axes.set_xlabel("probability (dashed: threshold)")
    axes.set_ylabel("frames, logarithmic")
    axes.legend(loc="upper center", frameon=True, framealpha=1.0, edgecolor="none")


def _draw_confusion(axes: Axes, model: RewardModel, scores: Scores) -> None:
    classes = model.card.classes
    shares = scores.confusion / np.maximum(1, scores.confusion.sum(1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.4)
    for (row, column), count in np.ndenumerate(scores.confusion):
        colour = "white" if shares[row, column] > 0.7 else "black"
        axes.text(column, row, f"{count}", ha="center", va="center", fontsize=12, color=colour)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("taken for")
    axes.set_ylabel("is")
    axes.grid(False)


def _page(model: RewardModel, scores: Scores, places: list[str], folder: Path) -> str:
    card, s = model.card, scores.summary()
    title = html.escape(f"Success classifier, {card.task}")
    tiles = (
        (f"{100 * s['accuracy']:.2f} %", "accuracy"),
        (f"{100 * s['false_positive_rate']:.2f} %", f"false positives ({s['false_positives']})"),
        (f"{100 * s['false_negative_rate']:.2f} %", f"false negatives ({s['false_negatives']})"),
        (f"{s['calibration_error']:.3f}", "calibration error"),
        (f"{s['frames']}", f"frames, {s['success_frames']} successes"),
        (f"{s['episodes']}", "episodes, none seen in training"),
    )
    cells = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for value, name in tiles)
    delay = f"{s['median_delay_frames']:.0f}" if s["episodes_found"] else "no"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{PAGE_STYLE.read_text(encoding="utf-8")} .sheet {{ max-width: 100%; }}</style>
</head>
<body>
<main>
<header><h1>{title}</h1>
<p class="muted">cameras {html.escape(", ".join(card.cameras))}, {card.side} x {card.side},
{card.config.backbone}; {date.today().isoformat()}, episodes of {html.escape(", ".join(places))}</p>
</header>
<section class="tiles">{cells}</section>
<section><h2>In use</h2>
<p>Threshold {card.threshold:.3f}, {card.config.hold} frames in a row{_gate(card.config.gate)}:
{s["episodes_falsely_declared"]} of {s["episodes"]} episodes were declared a success on a frame that is none;
{s["episodes_found"]} of {s["episodes_with_success"]} successes were found, {delay} frames late in
the median.</p></section>
<section><h2>Figures</h2>{_image(folder / "figures.png", "curve")}</section>
<section><h2>Thresholds</h2>{_thresholds(model, scores)}
<p class="caption">The classifier's own was set on other episodes, for {100 * card.config.target_fpr:g} % of false
positives. The others are set on the frames of this report, so they are what is possible and not what to expect.</p>
</section>
<section><h2>Wrong frames</h2>{_wrong(scores, folder)}</section>
</main>
</body>
</html>
"""


def _gate(text: str) -> str:
    return f", within the gate <code>{html.escape(text)}</code>" if text else ""


def _thresholds(model: RewardModel, scores: Scores) -> str:
    rows = [("the classifier's own", model.card.threshold)]
    rows += [
        (
            f"at most {100 * target:g} % false positives",
            choose_threshold(scores.probability, scores.succeeded, target),
        )
        for target in TARGETS
    ]
    cells = []
    for name, threshold in rows:
        false, true = rates_at(scores.probability, scores.succeeded, threshold)
        cells.append(
            f"<tr><td>{name}</td><td>{threshold:.4f}</td><td>{100 * false:.2f} %</td><td>{100 * true:.2f} %</td></tr>"
        )
    head = "<tr><th></th><th>threshold</th><th>false positives</th><th>true positives</th></tr>"
    return f'<table class="thresholds">{head}{"".join(cells)}</table>'


def _wrong(scores: Scores, folder: Path) -> str:
    count = int(scores.wrong.sum())
    if not count:
        return "<p>None.</p>"
    text = f"{min(count, SHOWN)} of {count}, the most certain ones first."
    return f'{_image(folder / "wrong.png", "sheet")}<p class="caption">{text}</p>'


def _image(path: Path, kind: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img class="{kind}" src="data:image/png;base64,{data}" alt="{path.stem}">'
