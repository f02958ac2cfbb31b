"""`serl reward`: success classifiers, from recording their pictures to knowing how far to trust them."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import tyro

from serl_suite.cli.commands import Commands, run_command
from serl_suite.cli.stopping import stop_on_signals
from serl_suite.cli.typed import as_typed, observing
from serl_suite.errors import SerlError
from serl_suite.nodes.config import ActorConfig
from serl_suite.rewards.config import BadClassifier, ClassifierConfig

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from serl_suite.rewards.classifier import RewardModel
    from serl_suite.rewards.frames import Frames
    from serl_suite.rewards.frames import Progress as Reading
    from serl_suite.rewards.scores import Scores

__all__ = ["COMMANDS", "CannotDo", "run"]

RECORD = """Record successes and failures of a task with its cameras, from its scripted expert, one file an episode.

  serl reward record FrankaPegInsert-v0 --n 20
  serl reward record FrankaPickCube-v0 --n 60 --seed 1 --out rewards/pick-more

Each start is tried twice: once well, with some frames after the success, and once badly: stopped just short of the
success, beside it, undone after it, or anything at all. Ctrl-C keeps what is recorded."""

TRAIN = """Train a success classifier, and report what it is worth on episodes that it has not seen.

  serl reward train rewards/FrankaPegInsert-v0
  serl reward train rewards/FrankaPegInsert-v0 runs/peg/disagreements --out peg.safetensors
  serl reward train rewards/FrankaPickCube-v0 --gate "tcp_pose[2] > -0.1" --hold 3
  serl train FrankaPickCube-v0 --obs pixels --reward classifier:rewards/FrankaPickCube-v0/classifier.safetensors

Episodes are split in three: the network learns from the first part, temperature and threshold are set on the second,
and the report is about the third. Steps without a known success are left out."""

EVAL = """Report how good a classifier is: ROC, threshold, calibration, and the frames that it has wrong.

  serl reward eval rewards/FrankaPegInsert-v0/classifier.safetensors
  serl reward eval rewards/FrankaPegInsert-v0/classifier.safetensors rewards/peg-more

Without DATA, on the test episodes that were put aside in training. With DATA, on its episodes, those left out that the
classifier was trained or calibrated on."""

RELABEL = """Judge a run's episodes again with a classifier, into a new folder of episodes.

  serl reward relabel runs/pick --model rewards/FrankaPickCube-v0/classifier.safetensors --out demos/relabelled

An episode ends where the classifier declares success, with reward 1; without that it ends as cut off by time, with
none. The run itself is not changed."""

SHIFT = """Measure a classifier under other light and moved cameras, in the twin.

  serl reward shift rewards/FrankaPegInsert-v0/classifier.safetensors
  serl reward shift rewards/FrankaPegInsert-v0/classifier.safetensors rewards/peg-more --episodes 20

Held-out episodes are done again, action by action, and seen under each change: light brighter and darker, warmer and
colder, out of focus, and each camera moved and turned a little."""

MODEL_NAME = "classifier.safetensors"
CAMERAS = ("front", "wrist")


class CannotDo(SerlError):
    """Nothing can be done as asked."""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    task: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]
    """Gymnasium id of the task; `serl tasks` lists ours."""
    n: int = 20
    """Starts; from each, one success and one failure."""
    noise: float = 0.2
    """Standard deviation of the expert's action noise, in action units."""
    seed: int = 0
    """Of environment, noise and failures."""
    out: Path | None = None
    """Folder for the files, empty or new; rewards/TASK by default."""
    cameras: tuple[str, ...] = CAMERAS
    """Cameras to see with."""
    image_size: int | None = None
    """Side of their pictures [pixels], as in the run that the classifier is for; the task's own by default."""


class _Train(ClassifierConfig, frozen=True, kw_only=True):
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Folder of episodes, or an episode file."""
    more: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA")] = ()
    """Any number of others."""
    out: Path | None = None
    """File for the classifier; DATA/classifier.safetensors by default."""
    cameras: tuple[str, ...] = ()
    """Cameras to see with; by default all that were recorded."""
    device: str = "cpu"
    """cpu, or cuda."""


class _Relabel(msgspec.Struct, frozen=True, kw_only=True):
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run, or a folder of episodes."""
    model: Path
    """File of `serl reward train`."""
    out: Path | None = None
    """Folder for the episodes, empty or new; RUN-relabelled by default."""
    device: str = "cpu"
    """cpu, or cuda."""


class _Eval(msgspec.Struct, frozen=True, kw_only=True):
    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """File of `serl reward train`."""
    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA")] = ()
    """Folders of episodes, or episode files; by default the test episodes put aside in training."""
    out: Path | None = None
    """Folder for the report; by default one beside the model, named like it and DATA."""
    device: str = "cpu"
    """cpu, or cuda."""


class _Shift(_Eval, frozen=True, kw_only=True):
    episodes: int = 8
    """How many of the held-out episodes are done again."""


def run(arguments: Sequence[str]) -> int:
    """Runs one of the commands; 0 success, 1 failure, 2 wrong usage, 130 interrupted.

    Raises:
        SerlError: Says what is wrong and what to do.
    """
    return run_command("serl reward", COMMANDS, arguments)


def _record(arguments: Sequence[str]) -> int:
    chosen = tyro.cli(_Record, args=list(arguments), prog="serl reward record", description=RECORD)
    if chosen.n < 1 or not chosen.noise >= 0 or chosen.seed < 0:
        raise CannotDo("--n is 1 or more, --noise and --seed are not negative")
    folder = _new_folder(chosen.out or Path("rewards") / chosen.task.replace("/", "_"))
    stop = stop_on_signals()
    from serl_suite.cli.main import EXIT_INTERRUPTED
    from serl_suite.nodes.environment import Environment
    from serl_suite.nodes.reward_recording import record_attempts

    environment = Environment(chosen.task, cameras=chosen.cameras, image_size=chosen.image_size)
    episodes = frames = successes = 0
    try:
        attempts = record_attempts(environment, folder, starts=chosen.n, noise=chosen.noise, seed=chosen.seed)
        with _bar("recording", 2 * chosen.n) as (progress, bar):
            for episode, kind in attempts:
                episodes, frames = episodes + 1, frames + len(episode.steps)
                successes += sum(bool(step.success) for step in episode.steps)
                progress.update(bar, completed=episodes, note=kind)
                if stop.is_set():
                    break
    finally:
        environment.close()
    print(f"{episodes} episodes in {folder}: {frames} frames, {successes} of them successes")  # noqa: T201
    if episodes < 2 * chosen.n:
        print("Stopped; what is recorded can be trained on, with others of another --seed")  # noqa: T201
        return EXIT_INTERRUPTED
    print(f"Train on them: {as_typed(f'serl reward train {folder}')}")  # noqa: T201
    return 0


def _train(arguments: Sequence[str]) -> int:
    chosen = tyro.cli(_Train, args=list(arguments), prog="serl reward train", description=TRAIN)
    config = ClassifierConfig(**{name: getattr(chosen, name) for name in ClassifierConfig.__struct_fields__})
    data = (chosen.data, *chosen.more)
    beside = chosen.data if chosen.data.is_dir() else chosen.data.parent
    path = chosen.out or beside / MODEL_NAME
    if path.exists():
        raise BadClassifier(f"{path} exists, and a run may judge by it; give another --out, or remove it")
    if path.parent.exists() and not path.parent.is_dir():
        raise CannotDo(f"{path.parent} is no folder; give another --out")
    stop = stop_on_signals()
    from serl_suite.cli.main import EXIT_INTERRUPTED
    from serl_suite.networks.host import check_device, tune_host
    from serl_suite.rewards.training import Training

    check_device(chosen.device)
    tune_host()
    with _reading() as progress:
        frames = _read(data, chosen.cameras, progress)
    training = Training(frames, config, data, chosen.device)
    with _bar("training", config.epochs) as (progress, bar):
        for epoch in training.epochs():
            note = f"loss {epoch.loss:.3g}, accuracy {100 * epoch.accuracy:.1f} %"
            progress.update(bar, completed=epoch.number, note=note)
            if stop.is_set() and epoch.number < config.epochs:
                print("Stopped; no classifier was written.")  # noqa: T201
                return EXIT_INTERRUPTED
    model = training.finish()
    model.save(path)
    scores = _report(model, frames.only(model.card.parts.test), _report_folder(path))
    if not scores.true_positive_rate > 0.0:
        print(f"Classifier: {path}; it finds no success at its threshold: train longer, or on more")  # noqa: T201
        return 0
    print(f"Classifier: {path}; use it: {_use(model, path)}")  # noqa: T201
    return 0


def _use(model: "RewardModel", path: Path) -> str:
    """The command that trains with it, with the pictures that it knows."""
    card = model.card
    cameras = () if card.cameras == CAMERAS else card.cameras  # a run's own by default
    seen = observing("pixels", ActorConfig(cameras=cameras, image_size=card.side))
    return as_typed(shlex.join(["serl", "train", card.task, "--reward", f"classifier:{path}", *seen]))


def _eval(arguments: Sequence[str]) -> int:
    chosen = tyro.cli(_Eval, args=list(arguments), prog="serl reward eval", description=EVAL)
    from serl_suite.networks.host import check_device, tune_host
    from serl_suite.rewards.classifier import RewardModel

    check_device(chosen.device)
    tune_host()
    model = RewardModel.load(chosen.model, chosen.device)
    folder = _report_folder(chosen.model, chosen.out, chosen.data)
    _report(model, _held_out(model, chosen.data), folder)
    return 0


def _relabel(arguments: Sequence[str]) -> int:
    chosen = tyro.cli(_Relabel, args=list(arguments), prog="serl reward relabel", description=RELABEL)
    folder = _new_folder(chosen.out or chosen.run.with_name(f"{chosen.run.name}-relabelled"))
    stop = stop_on_signals()
    from serl_suite.cli.main import EXIT_INTERRUPTED
    from serl_suite.networks.host import check_device, tune_host
    from serl_suite.nodes.reward_relabel import relabel
    from serl_suite.rewards.classifier import RewardModel
    from serl_suite.rewards.frames import episode_files

    check_device(chosen.device)
    tune_host()
    model = RewardModel.load(chosen.model, chosen.device)
    run = chosen.run
    files = episode_files([run / "demos", run / "episodes"] if (run / "run.json").exists() else [run])
    results = []
    with _bar("judging", len(files)) as (progress, bar):
        for result in relabel(files, model, folder):
            results.append(result)
            progress.update(bar, completed=len(results))
            if stop.is_set():
                break
    gained = sum(r.after and not r.before for r in results)
    lost = sum(r.before and not r.after for r in results)
    print(  # noqa: T201
        f"{len(results)} episodes in {folder}: {sum(r.after for r in results)} successes, {gained} of them new, {lost} "
        f"old ones not seen; {sum(r.cut for r in results)} steps after a success cut off"
    )
    return 0 if len(results) == len(files) else EXIT_INTERRUPTED


def _shift(arguments: Sequence[str]) -> int:
    chosen = tyro.cli(_Shift, args=list(arguments), prog="serl reward shift", description=SHIFT)
    if chosen.episodes < 1:
        raise CannotDo(f"--episodes is {chosen.episodes}; give 1 or more")
    stop = stop_on_signals()
    from serl_suite.cli.main import EXIT_INTERRUPTED
    from serl_suite.networks.host import check_device, tune_host
    from serl_suite.nodes.environment import Environment
    from serl_suite.nodes.reward_shift import CONDITIONS, draw_shift, measure_shift, shift_table
    from serl_suite.rewards.classifier import RewardModel

    check_device(chosen.device)
    tune_host()
    model = RewardModel.load(chosen.model, chosen.device)
    folder = _report_folder(chosen.model, chosen.out, chosen.data)
    frames = _held_out(model, chosen.data)
    frames = frames._replace(clips=frames.clips[: chosen.episodes])
    folder.mkdir(parents=True, exist_ok=True)
    card, rows = model.card, []
    environment = Environment(card.task, cameras=card.cameras, image_size=card.side)
    try:
        with _bar("looking again", len(CONDITIONS)) as (progress, bar):
            for row in measure_shift(model, frames, environment):
                rows.append(row)
                progress.update(bar, completed=len(rows), note=row.name)
                if stop.is_set():
                    break
    finally:
        environment.close()
    draw_shift(rows, folder / "shift.png")
    (folder / "shift.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    print(shift_table(rows))  # noqa: T201
    print(f"Written: {folder / 'shift.png'} and shift.json")  # noqa: T201
    return 0 if len(rows) == len(CONDITIONS) else EXIT_INTERRUPTED


def _new_folder(folder: Path) -> Path:
    """Raises: CannotDo, where something is there already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CannotDo(f"{folder} is not empty; give another folder by --out, or move that one away")
    return folder


def _report_folder(model: Path, out: Path | None = None, data: Sequence[Path] = ()) -> Path:
    """As asked for, or beside the model: a report on other data than its own test episodes does not replace theirs.

    Raises:
        CannotDo: A file is there.
    """
    name = "-".join([f"{model.stem}-report", *(place.stem for place in data)])
    folder = out or model.with_name(name)
    if folder.exists() and not folder.is_dir():
        raise CannotDo(f"{folder} is a file, and the report is a folder; give another by --out")
    return folder


def _held_out(model: "RewardModel", data: Sequence[Path]) -> "Frames":
    """The test episodes, or all of `data` that training has not seen.

    Raises:
        CannotDo: There are none.
        BadClassifier: They are of another task, or of other cameras or sizes.
    """
    places = data or tuple(Path(place) for place in model.card.data)
    with _reading() as progress:
        frames = _read(places, model.card.cameras, progress)
    model.card.check(frames.spec, str(places[0]))
    parts = model.card.parts
    left = frames.without(parts) if data else frames.only(parts.test)
    if frames.classes != model.card.classes:
        raise CannotDo(
            f"{places[0]} has classes {', '.join(frames.classes)}, the classifier {', '.join(model.card.classes)}; "
            "label the episodes alike"
        )
    if not left.clips:
        raise CannotDo(
            f"no episode in {', '.join(map(str, places))} is new to the classifier; record others, with another "
            f"seed: serl reward record {model.card.task} --seed 1 --out FOLDER"
        )
    if data and (dropped := len(frames.clips) - len(left.clips)):
        print(f"{dropped} episodes left out: training has seen them")  # noqa: T201
    if not data and (gone := len(parts.test) - len(left.clips)):
        print(f"{gone} of {len(parts.test)} test episodes are no longer there")  # noqa: T201
    return left


def _read(data: Sequence[Path], cameras: Sequence[str], progress: "Reading") -> "Frames":
    from serl_suite.rewards.frames import read_frames

    return read_frames(data, cameras, progress)


def _report(model: "RewardModel", frames: "Frames", folder: Path) -> "Scores":
    from serl_suite.nodes.reward_report import write_reward_report
    from serl_suite.rewards.scores import score

    scores = score(model, frames)
    page = write_reward_report(model, frames, scores, folder)
    print(_summary(scores, model))  # noqa: T201
    print(f"Report: {page}")  # noqa: T201
    return scores


def _summary(scores: "Scores", model: "RewardModel") -> str:
    s = scores.summary()
    late = f", {s['median_delay_frames']:.0f} frames late in the median" if s["episodes_found"] else ""
    return "\n".join(
        [
            f"{model.card.task}: {s['frames']} held-out frames of {s['episodes']} episodes, {s['success_frames']} "
            "of them successes",
            f"  accuracy           {100 * s['accuracy']:.2f} %, at the threshold {model.card.threshold:.3f}",
            f"  false positives    {100 * s['false_positive_rate']:.2f} % of failure frames ({s['false_positives']})",
            f"  false negatives    {100 * s['false_negative_rate']:.2f} % of success frames ({s['false_negatives']})",
            f"  calibration error  {s['calibration_error']:.3f}; area below the ROC curve {s['roc_area']:.4f}",
            f"  in use             {s['episodes_falsely_declared']} of {s['episodes']} episodes falsely declared, "
            f"{s['episodes_found']} of {s['episodes_with_success']} successes found{late}",
        ]
    )


@contextmanager
def _bar(what: str, total: int) -> Iterator[tuple["Progress", "TaskID"]]:
    """A progress bar with a note."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=40), MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns) as progress:
        yield progress, progress.add_task(what, total=total, note="")


@contextmanager
def _reading() -> Iterator["Reading"]:
    with _bar("reading episodes", 0) as (progress, bar):
        yield lambda done, count: progress.update(bar, completed=done, total=count)


COMMANDS: Commands = {
    "record": (_record, "record successes and failures with a task's cameras"),
    "train": (_train, "train a classifier, and report on episodes it has not seen"),
    "eval": (_eval, "report on a classifier: ROC, threshold, calibration, wrong frames"),
    "relabel": (_relabel, "judge a run's episodes again with a classifier, into a new folder"),
    "shift": (_shift, "measure a classifier under other light and moved cameras"),
}
"""What follows `serl reward`, and one line of help each."""
