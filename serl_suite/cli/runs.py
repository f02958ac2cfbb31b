"""New runs and resumed ones, as `serl train` and `serl learner` take them from the command line."""

import datetime
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import msgspec
import tyro

from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.cli.typed import as_typed
from serl_suite.errors import SerlError
from serl_suite.nodes.config import PIXELS, BadConfig, TrainConfig
from serl_suite.nodes.run_folder import RunFolder, RunFolderError

__all__ = ["at_the_rigs_pace", "discard_on_error", "open_run"]


class _NewRun(TrainConfig, frozen=True, kw_only=True):
    run: Path | None = None
    """Folder of the run; runs/TASK-DATE by default."""


class _ResumedRun(msgspec.Struct, frozen=True, kw_only=True):
    resume: Path
    """Folder of the run to go on with."""


@contextmanager
def discard_on_error(folder: RunFolder) -> Iterator[None]:
    """Around what a new run needs before any data come: where that fails, no empty run folder stays behind."""
    try:
        yield
    except SerlError:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


def open_run(arguments: Sequence[str], *, prog: str, description: str) -> tuple[RunFolder, bool]:
    """Makes or opens the run that the command line names, and tells whether it is new.

    Raises:
        RunFolderError: The folder exists, is missing, or is of another version; or a resumed run is to be another.
        BadConfig: The run would end before its first update.
    """
    if any(word == "--resume" or word.startswith("--resume=") for word in arguments):
        if more := _beside_resume(arguments):
            raise RunFolderError(
                f"--resume goes on with a run as it was configured, without {' '.join(more)}; leave that out, or start "
                "a new run, to which --demos RUN gives the old one's demonstrations"
            )
        resumed = tyro.cli(_ResumedRun, args=list(arguments), prog=prog, description=description)
        return RunFolder(resumed.resume), False
    text = f"{description}\n\nGo on with an earlier run, finished or killed: {prog} --resume RUN"
    default = _NewRun(task=tyro.MISSING, agent=PIXELS if _of_pixels(arguments) else RLPDConfig())
    new = tyro.cli(_NewRun, args=list(arguments), prog=prog, description=text, default=default)
    config = at_the_rigs_pace(
        TrainConfig(**{name: getattr(new, name) for name in TrainConfig.__struct_fields__})
    )
    if config.max_steps <= config.learner.warmup_steps:
        raise BadConfig(
            f"--max-steps {config.max_steps} ends the run before its first update, which comes after "
            f"--learner.warmup-steps {config.learner.warmup_steps}; give more of the one, or less of the other"
        )
    name = f"{config.task.replace('/', '_')}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    path = new.run or Path("runs") / name
    if (path / "run.json").exists():
        resume = as_typed(f"{prog} --resume {path}")
        raise RunFolderError(
            f"{path} exists already; go on with it by `{resume}`, or name another with --run"
        )
    return RunFolder.create(path, config), True


def _beside_resume(arguments: Sequence[str]) -> list[str]:
    """What the command line says beside `--resume RUN` and a wish for help."""
    words = list(arguments)
    for place, word in enumerate(words):
        if word == "--resume":
            del words[place : place + 2]
            break
    return [word for word in words if word not in ("-h", "--help") and not word.startswith("--resume=")]


def _of_pixels(arguments: Sequence[str]) -> bool:
    """Whether the command line asks for pictures, which other defaults suit."""
    return "--obs=pixels" in arguments or ("--obs", "pixels") in pairwise(arguments)


def at_the_rigs_pace(config: TrainConfig) -> TrainConfig:
    """An arm whose time does not stand still leaves no choice."""
    if config.rig is None or config.rig.pace == "lockstep":
        return config
    actor = msgspec.structs.replace(config.actor, pace="realtime")
    return msgspec.structs.replace(config, actor=actor)
