"""`serl encoder pretrain`: weights for a backbone, from pictures without labels."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import msgspec
import tyro

from serl_suite.cli.stopping import stop_on_signals
from serl_suite.cli.typed import observing
from serl_suite.errors import SerlError
from serl_suite.nodes.config import ActorConfig

if TYPE_CHECKING:
    from serl_suite.nodes.pretrain_pictures import Album, Pairs

__all__ = ["CannotPretrain", "run"]

DESCRIPTION = """Train an image backbone on pictures alone: no labels, no reward, no download.

  serl encoder pretrain runs/FrankaPickCube-v0-20260101-120000
  serl encoder pretrain demos/FrankaPickCube-v0 --side 64 --out weights/pick.safetensors
  serl encoder pretrain --task FrankaPickCube-v0 --renders 4000 --side 64
  SERL_WEIGHTS=weights serl train FrankaPickCube-v0 --obs pixels --agent.encoder.frozen --agent.encoder.weights pick

Pictures come from every camera of recorded episodes (run folders, demonstrations, files) and, with --task, from its
twin, where a scripted expert and random motions move the robot. The backbone learns to tell how the robot moved between
two pictures, for which it has to find what is in them. Frozen, it looks at each picture only once."""


class CannotPretrain(SerlError):
    """Weights cannot be trained as asked."""


class _Arguments(msgspec.Struct, frozen=True, kw_only=True):
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")] = ()
    """Run folders, folders of demonstrations, or episode files, with cameras."""
    task: Annotated[str | None, tyro.conf.arg(metavar="TASK")] = None
    """Gymnasium id of a task whose twin is looked at, too."""
    renders: int = 4000
    """Looks at the twin, before and after a step, over all of its cameras."""
    cameras: tuple[str, ...] = ()
    """Cameras of the twin; all of them by default."""
    backbone: str = "cnn"
    """cnn, dilated, resnet10 or resnet18."""
    side: int = 128
    """Of the square pictures [pixels]; those of other sizes are resized. A cnn or dilated then suits this side only."""
    looks: int = 10_000
    """Of all looks, recorded and rendered, keep at most so many, drawn at random."""
    updates: int = 800
    """Gradient steps."""
    batch: int = 64
    """Looks in each."""
    seed: int = 0
    """Of everything drawn."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for the weights, not there yet; weights/BACKBONE-SIDE.safetensors by default."""


def run(arguments: Sequence[str]) -> int:
    """Trains; 0 when the weights are written, 130 interrupted (nothing is)."""
    chosen = tyro.cli(_Arguments, args=list(arguments), prog="serl encoder pretrain", description=DESCRIPTION)
    out = chosen.out or Path("weights") / f"{chosen.backbone}-{chosen.side}.safetensors"
    _check(chosen, out)
    stop = stop_on_signals(say=True)
    from serl_suite.cli.main import EXIT_INTERRUPTED
    from serl_suite.networks.host import tune_host
    from serl_suite.nodes.pretrain import PretrainConfig, pretrain

    tune_host()
    config = PretrainConfig(
        backbone=chosen.backbone, side=chosen.side, updates=chosen.updates, batch=chosen.batch, seed=chosen.seed,
        device=chosen.device,
    )  # fmt: skip
    pairs = _collect(chosen, stop)
    if pairs is None:
        return EXIT_INTERRUPTED
    with _bar("training", config.updates, "loss {task.fields[note]}") as update:
        done = pretrain(config, pairs, out, lambda step, loss: update(step, f"{loss:.4f}"), stop)
    if not done:
        return EXIT_INTERRUPTED
    print(f"{out}: {chosen.backbone} from {len(pairs.eyes)} looks, {chosen.side} x {chosen.side} pixels")  # noqa: T201
    seen = " ".join(observing("pixels", ActorConfig(image_size=chosen.side)))
    print(  # noqa: T201
        f"Use it: serl train {chosen.task or 'TASK'} {seen} --agent.encoder.frozen --agent.encoder.weights {out}"
    )
    return 0


def _check(chosen: _Arguments, out: Path) -> None:
    """What can be said before torch is imported and minutes have gone."""
    if not chosen.runs and chosen.task is None:
        raise CannotPretrain(
            "nothing to look at; give recorded episodes (serl encoder pretrain RUN...) or a twin (--task TASK)"
        )
    if out.exists():
        raise CannotPretrain(f"{out} exists already; give another file by --out, or move that one away")
    if out.parent.exists() and not out.parent.is_dir():
        raise CannotPretrain(f"{out.parent} is no folder; give another file by --out")
    if out.suffix != ".safetensors":
        raise CannotPretrain(
            f"{out} must end in .safetensors, which tells what it is; give such a file by --out"
        )
    for name, least in (("renders", 1), ("looks", 1), ("side", 8), ("updates", 1), ("batch", 2)):
        if getattr(chosen, name) < least:
            raise CannotPretrain(f"--{name} is {getattr(chosen, name)}; give {least} or more")


def _collect(chosen: _Arguments, stop: Event) -> "Pairs | None":
    """Recorded and rendered looks; None where it was stopped."""
    from serl_suite.nodes.pretrain_pictures import Album, recorded

    album = Album(chosen.side, chosen.looks, chosen.seed)
    if chosen.runs:
        with _bar("reading episodes", None, "") as update:
            for number, pair in enumerate(recorded(chosen.runs), 1):
                album.add(pair)
                update(number, "")
                if stop.is_set():
                    return None
    if chosen.task is not None and not _render(chosen, album, stop):
        return None
    return album.pairs()


def _render(chosen: _Arguments, album: "Album", stop: Event) -> bool:
    """Adds looks at the twin; False where it was stopped."""
    from serl_suite.nodes.environment import Environment
    from serl_suite.nodes.pretrain_pictures import rendered

    environment = Environment(chosen.task or "", obs="pixels", cameras=chosen.cameras, image_size=chosen.side)
    try:
        with _bar("looking at the twin", chosen.renders, "") as update:
            for number, pair in enumerate(islice(rendered(environment, chosen.seed), chosen.renders), 1):
                album.add(pair)
                update(number, "")
                if stop.is_set():
                    return False
    finally:
        environment.close()
    return True


@contextmanager
def _bar(what: str, total: int | None, note: str) -> Iterator[Callable[[int, str], None]]:
    """A progress bar; gives what moves it to a count, with a note."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TextColumn(note),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=total, note="")
        yield lambda count, text: progress.update(bar, completed=count, note=text)
