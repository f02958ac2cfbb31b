"""`serl eval`: how good a run's policy is, on fresh episodes."""

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import msgspec
import tyro

from serl_suite.cli.stopping import stop_on_signals
from serl_suite.cli.typed import as_typed
from serl_suite.nodes.config import RigFile

if TYPE_CHECKING:
    from serl_suite.nodes.evaluation import EvaluationResult
    from serl_suite.nodes.run_folder import RunFolder
    from serl_suite.rig import Rig

__all__ = ["evaluate_and_report", "run"]

DESCRIPTION = """Evaluate a run's policy on fresh episodes, and film it.

  serl eval runs/FrankaPickCube-v0-20260101-120000
  serl eval RUN --episodes 400 --seed 7 --no-video

The policy acts deterministically, from starts that no training episode had. Writes evaluation.json, evaluation.mp4,
evaluation.gif and report.html into the run folder. Exit code 0 only when the success rate reaches the run's pass_at (or
the environment does not tell success)."""


class _Arguments(msgspec.Struct, frozen=True, kw_only=True):
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    episodes: int | None = None
    """Fresh episodes; by default as many as the run was configured to."""
    seed: int | None = None
    """Of the first episode; by default the run's seed."""
    rig: RigFile = None
    """The rig to evaluate on; by default the one that the run was trained on."""
    video: bool = True
    """Film the first episodes."""


def run(arguments: Sequence[str]) -> int:
    """Evaluates and reports; 0 passed, 1 not, 130 interrupted."""
    chosen = tyro.cli(_Arguments, args=list(arguments), prog="serl eval", description=DESCRIPTION)
    stop = stop_on_signals()
    from serl_suite.nodes.run_folder import RunFolder

    folder = RunFolder(chosen.run)
    folder.hold_files()
    return evaluate_and_report(
        folder, stop, episodes=chosen.episodes, seed=chosen.seed, rig=chosen.rig, film=chosen.video
    )


def evaluate_and_report(
    folder: "RunFolder",
    stop: Event,
    *,
    episodes: int | None = None,
    seed: int | None = None,
    rig: "Rig | None" = None,
    film: bool = True,
) -> int:
    """Evaluates a run with a progress bar, writes its report and prints the verdict.

    Args:
        folder: Of a run that has trained.
        stop: Ends the evaluation early.
        episodes: How many; the run's own number by default.
        seed: Of the first episode; the run's own by default.
        rig: To evaluate on; the run's own by default.
        film: Whether to film the first episodes.

    Returns:
        Exit code: 0 passed, 1 not, 130 stopped.
    """
    import logging

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from serl_suite.cli.main import EXIT_INTERRUPTED
    from serl_suite.nodes.evaluate_run import evaluate_run
    from serl_suite.nodes.report import write_report
    from serl_suite.wire.messages import EpisodeOutcome

    logging.getLogger("OpenGL").setLevel(logging.WARNING)
    count = folder.config.evaluation.episodes if episodes is None else episodes
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("evaluating", total=count, note="")
        successes = 0

        def show(outcome: EpisodeOutcome) -> None:
            nonlocal successes
            successes += outcome.success
            note = f"{successes} succeeded" if successes else ""
            is_last = progress.tasks[0].completed + 1 == count
            phase = "filming" if film and is_last else "evaluating"
            progress.update(bar, advance=1, note=note, description=phase)

        result = evaluate_run(
            folder,
            episodes=count,
            seed=folder.config.seed if seed is None else seed,
            rig=rig,
            film=film,
            progress=show,
            should_stop=stop.is_set,
        )
    if result is None:
        print(f"Stopped; nothing was written. Evaluate again: {as_typed(f'serl eval {folder.path}')}")  # noqa: T201
        return EXIT_INTERRUPTED
    print(_verdict(result, folder))  # noqa: T201
    print(f"Report: {write_report(folder)}")  # noqa: T201
    return 0 if not result.knows_success or result.success_rate >= folder.config.evaluation.pass_at else 1


def _verdict(result: "EvaluationResult", folder: "RunFolder") -> str:
    from serl_suite.nodes.evaluation import wilson_interval

    count = len(result.episodes)
    if not result.knows_success:
        mean = sum(episode.episode_return for episode in result.episodes) / max(count, 1)
        return f"{result.task}: mean return {mean:.4g} over {count} episodes (this environment does not tell success)"
    low, high = wilson_interval(result.successes, count)
    mark = folder.config.evaluation.pass_at
    verdict = "passed" if result.success_rate >= mark else "not passed"
    judged = (
        ""
        if result.false_positives is None
        else f"; {result.false_positives} of {count} ended as a success that was none"
    )
    return (
        f"{result.task}: {result.successes} of {count} succeeded, 95 % interval {100 * low:.1f} to {100 * high:.1f} %; "
        f"{verdict} (the mark is {100 * mark:.0f} %){judged}"
    )
