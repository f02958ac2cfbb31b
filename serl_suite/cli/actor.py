"""`serl actor`: the actor process alone."""

import datetime
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Literal, NamedTuple, TypeVar

import msgspec
import tyro

from serl_suite.cli.runs import at_the_rigs_pace
from serl_suite.cli.stopping import stop_on_signals
from serl_suite.cli.typed import as_typed
from serl_suite.nodes.config import ActorConfig, RigFile, TrainConfig

__all__ = ["run"]

log = logging.getLogger(__name__)

Kind = TypeVar("Kind", bound=msgspec.Struct)

DESCRIPTION = """Run an actor alone, on the robot's workstation.

  serl actor FrankaPickCube-v0 --connect tcp://learner:5555 --keys KEYS --actor.pace realtime
  serl actor --run RUN            an actor of a run on this machine

It acts with the newest policy it has, sends every step as it happens, and never waits for the network. Steps that the
learner has not acknowledged are in its folder: after a crash of either side the next start sends them first."""


class _Remote(msgspec.Struct, frozen=True, kw_only=True):
    task: tyro.conf.Positional[str]
    """Gymnasium id of the task; `serl tasks` lists ours."""
    obs: Literal["state", "pixels"] = "state"
    """As the learner's run: what is observed."""
    reward: str = "task"
    """As the learner's run: task, classifier:MODEL or key. MODEL is a file on this machine."""
    connect: str
    """The learner's address, such as tcp://learner:5555."""
    folder: Path = Path("actor")
    """Keeps unacknowledged steps of any run (spool) and, under TASK-DATE, the metrics of each start."""
    keys: Path | None = None
    """Folder of CURVE keys (`serl keys`); needed off loopback."""
    rig: RigFile = None
    """The rig to act on, such as hardware/rigs/fr3.yaml."""
    seed: int = 0
    """Seed of environment and exploration."""
    number: int = 0
    """Tells several actors of one learner apart."""
    actor: ActorConfig = msgspec.field(default_factory=ActorConfig)


class _Local(msgspec.Struct, frozen=True, kw_only=True):
    run: Path
    """Folder of the run; its configuration, address and spool are used."""
    number: int = 0
    """Tells several actors of one learner apart."""


class _Place(NamedTuple):
    """Where an actor works."""

    config: TrainConfig
    address: str
    """The learner's."""
    spool: Path
    metrics: Path
    keys: Path | None


def run(arguments: Sequence[str]) -> int:
    """Acts until the learner ends the training or a signal comes; 0 in each case."""
    stop = stop_on_signals(say=True)
    is_local = any(word == "--run" or word.startswith("--run=") for word in arguments)
    chosen = parse(_Local, arguments) if is_local else parse(_Remote, arguments)
    place = _in_run(chosen.run, stop) if isinstance(chosen, _Local) else _elsewhere(chosen)
    if place is None:
        return 0
    from serl_suite.nodes.actor import Actor
    from serl_suite.wire.keys import client_keys

    actor = Actor(
        place.config,
        address=place.address,
        spool=place.spool,
        metrics=place.metrics,
        keys=client_keys(folder=place.keys) if place.keys is not None else None,
        number=chosen.number,
    )
    reason = actor.run(stop)
    print(f"{reason}; metrics are in {place.metrics}")  # noqa: T201
    if stop.is_set():
        again = as_typed(shlex.join(["serl", "actor", *arguments]))
        print(f"Nothing is lost. Go on with: {again}")  # noqa: T201
    return 0


def parse(kind: type[Kind], arguments: Sequence[str]) -> Kind:
    """The command line as one of the two kinds; ends the program where it is none."""
    return tyro.cli(kind, args=list(arguments), prog="serl actor", description=DESCRIPTION)


def _in_run(run: Path, stop: Event) -> _Place | None:
    """Waits for the run's learner; None: stopped meanwhile."""
    from serl_suite.nodes.run_folder import RunFolder

    folder = RunFolder(run)
    folder.hold_files()
    if not folder.address.exists():
        log.info("waiting for a learner on %s", folder.path)
    address = folder.wait_for_address(stop)
    if stop.is_set():
        return None
    keys = folder.config.learner.keys
    return _Place(folder.config, address, folder.spool, folder.metrics, None if keys is None else Path(keys))


def _elsewhere(chosen: _Remote) -> _Place:
    config = at_the_rigs_pace(
        TrainConfig(
            task=chosen.task, obs=chosen.obs, reward=chosen.reward, rig=chosen.rig, seed=chosen.seed,
            actor=chosen.actor,
        )
    )  # fmt: skip
    start = f"{config.task.replace('/', '_')}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    return _Place(config, chosen.connect, chosen.folder / "spool", chosen.folder / start, chosen.keys)
