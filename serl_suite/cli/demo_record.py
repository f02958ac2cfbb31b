"""`serl demo record`: demonstrations to train from."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import tyro

from serl_suite.cli.stopping import stop_on_signals
from serl_suite.cli.typed import as_typed, observing
from serl_suite.errors import SerlError
from serl_suite.nodes.config import ActorConfig

if TYPE_CHECKING:
    from serl_suite.nodes.environment import Environment

__all__ = ["CannotRecord", "record_with_progress", "run"]

DESCRIPTION = """Record demonstrations, one parquet file an episode.

  serl demo record FrankaPickCube-v0 --scripted
  serl demo record FrankaPickCube-v0 --scripted --episodes 50 --noise 0.3 --out demos/pick-noisy
  serl train FrankaPickCube-v0 --demos demos/FrankaPickCube-v0
  serl demo record FrankaPickCube-v0 --scripted --obs pixels --image-size 64 --out demos/pick-64

Only successful episodes are kept. `serl data inspect FOLDER` shows what was recorded."""


class CannotRecord(SerlError):
    """Nothing can be recorded as asked."""


class _Arguments(msgspec.Struct, frozen=True, kw_only=True):
    task: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]
    """Gymnasium id of the task; `serl tasks` lists ours."""
    scripted: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Let the task's scripted expert demonstrate."""
    episodes: int = 20
    """Successful demonstrations to record."""
    noise: float = 0.2
    """Standard deviation of the expert's action noise, in action units."""
    seed: int = 0
    """Of environment and noise."""
    out: Path | None = None
    """Folder for the files, empty or new; demos/TASK by default."""
    cameras: tuple[str, ...] = ()
    """Cameras to observe, for environments made with `cameras=`."""
    obs: Literal["state", "pixels"] = "state"
    """pixels: without the task's state, as for `serl train --obs pixels`."""
    image_size: int | None = None
    """Side of the pictures [pixels]; None: the environment's own."""
    frame_stack: int = 1
    """Pictures of each camera in an observation."""


def run(arguments: Sequence[str]) -> int:
    """Records; 0 when all are there, 130 interrupted."""
    chosen = tyro.cli(_Arguments, args=list(arguments), prog="serl demo record", description=DESCRIPTION)
    if not chosen.scripted:
        raise CannotRecord(
            "teleoperation devices are not supported yet; record with the task's scripted expert: "
            f"serl demo record {chosen.task} --scripted"
        )
    folder = chosen.out or Path("demos") / chosen.task.replace("/", "_")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CannotRecord(f"{folder} is not empty; give another folder by --out, or move that one away")
    return _record(chosen, folder)


def _record(chosen: _Arguments, folder: Path) -> int:
    stop = stop_on_signals()
    from serl_suite.cli.main import EXIT_INTERRUPTED
    from serl_suite.nodes.environment import Environment

    environment = Environment(
        chosen.task, obs=chosen.obs, cameras=chosen.cameras, image_size=chosen.image_size,
        frame_stack=chosen.frame_stack,
    )  # fmt: skip
    try:
        finished = record_with_progress(
            environment, folder, episodes=chosen.episodes, noise=chosen.noise, seed=chosen.seed, stop=stop
        )
    finally:
        environment.close()
    kept = len(list(folder.glob("*.parquet")))
    seen = ActorConfig(
        cameras=chosen.cameras,
        image_size=chosen.image_size or ActorConfig().image_size,
        frame_stack=chosen.frame_stack,
    )
    words = ["serl", "train", chosen.task, "--demos", str(folder), *observing(chosen.obs, seen)]
    print(f"{kept} demonstrations in {folder}; train on them: {as_typed(shlex.join(words))}")  # noqa: T201
    return 0 if finished else EXIT_INTERRUPTED


def record_with_progress(
    environment: "Environment", folder: Path, *, episodes: int, noise: float, seed: int, stop: Event
) -> bool:
    """Records with a progress bar, as `nodes.demonstrations.record_scripted` does.

    Args:
        environment: Must have a scripted expert.
        folder: Receives one file an episode.
        episodes: Demonstrations to keep.
        noise: Standard deviation of the expert's action noise, in action units.
        seed: Of environment and noise.
        stop: Ends the recording after the episode that runs.

    Returns:
        Whether all of them were recorded.

    Raises:
        EnvironmentFailure: The environment has no expert, or one that keeps failing.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from serl_suite.nodes.demonstrations import record_scripted

    columns = (
        TextColumn("recording demonstrations"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failures]} tries failed"),
        TimeRemainingColumn(),
    )
    kept = failures = 0
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=episodes, failures=0)
        for _, success in record_scripted(environment, folder, episodes=episodes, noise=noise, seed=seed):
            kept, failures = kept + success, failures + (not success)
            progress.update(bar, completed=kept, failures=failures)
            if stop.is_set():
                break
    return kept == episodes
