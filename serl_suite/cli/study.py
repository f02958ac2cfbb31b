"""`serl study passivity`: energy constraint and passivity filter against neither, alone and together."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import tyro

if TYPE_CHECKING:
    from serl_suite.nodes.passivity_study import Arm, ArmResult, StudySettings

__all__ = ["run"]

DESCRIPTION = """Train and evaluate the four arms of the passivity study.

  serl study passivity
  serl study passivity --seeds 1 --form recovery --folder runs/recovery
  serl study passivity --folder runs/passivity --arms aware-on

A policy learns with an energy constraint (aware) or without (agnostic), behind the passivity filter (on) or without it
(off). Writes table.md, table.json, evaluation.png, training.png and a file for each arm and seed into the folder; what
is there already is not run again, so an interrupted study goes on where it was."""

ArmName = Literal["agnostic-off", "agnostic-on", "aware-off", "aware-on"]
EVERY: tuple[ArmName, ...] = ("agnostic-off", "agnostic-on", "aware-off", "aware-on")


class _Arguments(msgspec.Struct, frozen=True, kw_only=True):
    task: str = "FrankaMaze-v0"
    """A task with an energy account."""
    steps: int = 6000
    """Env steps of training."""
    utd: int = 4
    """Updates per env step."""
    demo_episodes: int = 20
    """Demonstrations of the task's scripted expert."""
    episodes: int = 30
    """Fresh episodes of each evaluation."""
    form: Literal["lagrangian", "recovery"] = "lagrangian"
    """How the aware arms are: energy used as a constraint, or a recovery policy against violations."""
    energy_limit_j: float = 0.2
    """Discounted energy that a Lagrangian policy may expect to use [J]."""
    seed: int = 0
    """The first seed."""
    seeds: int = 3
    """How many seeds of each arm."""
    arms: tuple[ArmName, ...] = EVERY
    """Which arms to run."""
    folder: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("runs/study-passivity")
    """Where results go."""


def run(arguments: Sequence[str]) -> int:
    """Runs the arms that are missing and writes the report; 0."""
    chosen = tyro.cli(_Arguments, args=list(arguments), prog="serl study passivity", description=DESCRIPTION)
    from serl_suite.networks.host import tune_host
    from serl_suite.nodes.passivity_study import ARMS, StudySettings
    from serl_suite.nodes.study_report import table, write_report

    settings = StudySettings(
        task=chosen.task, steps=chosen.steps, utd=chosen.utd, demo_episodes=chosen.demo_episodes,
        episodes=chosen.episodes, form=chosen.form, energy_limit_j=chosen.energy_limit_j,
    )  # fmt: skip
    tune_host()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for seed in range(chosen.seed, chosen.seed + chosen.seeds):
        for arm in ARMS:
            if arm.name in chosen.arms:
                _run_or_keep(arm, settings, seed, chosen.folder)
    rows = write_report(_results(chosen.folder, settings), chosen.folder)
    print(table(rows))  # noqa: T201
    print(f"Written to {chosen.folder}")  # noqa: T201
    return 0


def _run_or_keep(arm: "Arm", settings: "StudySettings", seed: int, folder: Path) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from serl_suite.data.durable import write_durably
    from serl_suite.nodes.passivity_study import run_arm

    path = folder / f"{arm.name}-{seed}.json"
    if path.exists():
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=40), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns) as progress:
        bar = progress.add_task(f"{arm.name}, seed {seed}", total=settings.steps)
        result = run_arm(arm, settings, seed, lambda step: progress.update(bar, completed=step))
    write_durably(path, msgspec.json.encode(result))


def _results(folder: Path, settings: "StudySettings") -> list["ArmResult"]:
    """Every result in the folder, in the order of the arms.

    Raises:
        MixedStudy: One is of other settings.
    """
    from serl_suite.nodes.passivity_study import ARMS, ArmResult, MixedStudy

    results = []
    for arm in ARMS:
        for path in sorted(folder.glob(f"{arm.name}-*.json")):
            result = msgspec.json.decode(path.read_bytes(), type=ArmResult)
            if result.settings != settings:
                raise MixedStudy(f"{path} is of other settings; give another --folder, or the same settings")
            results.append(result)
    return results
