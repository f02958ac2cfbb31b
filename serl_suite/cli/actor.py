"""`serl actor`: the actor process alone."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import tyro

from serl_suite.cli.stopping import stop_on_signals

__all__ = ["run"]

DESCRIPTION = """Run an actor alone, on the robot's workstation.

  serl actor FrankaPickCube-v0 --connect tcp://learner:5555 --keys KEYS --actor.pace realtime
  serl actor --run RUN            an actor of a run on this machine

It acts with the newest policy it has, sends every step as it happens, and never waits for the network. Steps that the
learner has not acknowledged are in its folder: after a crash of either side the next start sends them first."""


def run(arguments: Sequence[str]) -> int:
    """Acts until the learner ends the training or a signal comes; 0 in each case."""
    stop = stop_on_signals()
    from serl_suite.nodes.actor import Actor
    from serl_suite.nodes.config import ActorConfig, TrainConfig
    from serl_suite.nodes.run_folder import RunFolder
    from serl_suite.wire.keys import client_keys

    class Remote(msgspec.Struct, frozen=True, kw_only=True):
        task: tyro.conf.Positional[str]
        """Gymnasium id of the task; `serl tasks` lists ours."""
        connect: str
        """The learner's address, such as tcp://learner:5555."""
        folder: Path = Path("actor")
        """Keeps unacknowledged steps and this actor's metrics."""
        keys: Path | None = None
        """Folder of CURVE keys (`serl keys`); needed off loopback."""
        seed: int = 0
        """Seed of environment and exploration."""
        number: int = 0
        """Tells several actors of one learner apart."""
        actor: ActorConfig = msgspec.field(default_factory=ActorConfig)

    class Local(msgspec.Struct, frozen=True, kw_only=True):
        run: Path
        """Folder of the run; its configuration, address and spool are used."""
        number: int = 0
        """Tells several actors of one learner apart."""

    if any(word == "--run" or word.startswith("--run=") for word in arguments):
        local = tyro.cli(Local, args=list(arguments), prog="serl actor", description=DESCRIPTION)
        folder = RunFolder(local.run)
        keys = folder.config.learner.keys
        address = folder.wait_for_address(stop)
        actor = Actor(
            folder.config,
            address=address,
            spool=folder.spool,
            metrics=folder.metrics,
            keys=client_keys(folder=Path(keys)) if keys is not None else None,
            number=local.number,
        )
    else:
        remote = tyro.cli(Remote, args=list(arguments), prog="serl actor", description=DESCRIPTION)
        actor = Actor(
            TrainConfig(task=remote.task, seed=remote.seed, actor=remote.actor),
            address=remote.connect,
            spool=remote.folder / "spool",
            metrics=remote.folder / "metrics",
            keys=client_keys(folder=remote.keys) if remote.keys is not None else None,
            number=remote.number,
        )
    print(actor.run(stop))  # noqa: T201
    return 0
