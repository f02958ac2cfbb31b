"""The folder that a run leaves behind: where each thing lies, and the check that this version can read it.

config.yaml            the resolved configuration
run.json               format version, package versions, machine, date
files.json             what tells the classifier and the weights of a frozen backbone that it goes by from others
demos/                 the demonstrations, one parquet file an episode
episodes/<session>/    what the actors did, one parquet file an episode
journal/               steps of episodes that are still open
spool/                 an actor's steps that the learner has not acknowledged
checkpoints/           learner state; policy.safetensors is the policy that was evaluated
metrics/               learner.jsonl, actor.jsonl, tensorboard/
logs/                  learner.log, actor.log
evaluation.json, curve.png, evaluation.mp4, evaluation.gif, report.html
"""

import datetime
import difflib
import hashlib
import importlib.metadata
import platform
import time
from pathlib import Path
from threading import Event

import msgspec

from serl_suite.data.durable import write_durably
from serl_suite.errors import SerlError
from serl_suite.nodes.config import TrainConfig

__all__ = ["RunFolder", "RunFolderError", "RunInfo"]

FORMAT = 1
PACKAGES = ("serl-suite", "torch", "numpy", "mujoco", "gymnasium", "pyzmq")


class RunFolderError(SerlError):
    """The folder is no run, or one that this version cannot read."""


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was made with."""

    format: int
    run_id: str
    created: str
    machine: str
    versions: dict[str, str]


class RunFolder:
    """Paths of one run.

    Args:
        path: An existing run folder; `create` makes one.

    Raises:
        RunFolderError: The folder is missing, is no run, or has another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.demos = path / "demos"
        self.episodes = path / "episodes"
        self.journal = path / "journal"
        self.spool = path / "spool"
        self.checkpoints = path / "checkpoints"
        self.checkpoint = path / "checkpoints" / "learner.safetensors"
        self.policy = path / "checkpoints" / "policy.safetensors"
        self.metrics = path / "metrics"
        self.logs = path / "logs"
        self.evaluation = path / "evaluation.json"
        self.outcome = path / "outcome.json"
        self.files = path / "files.json"
        self.address = path / "learner.address"
        self.info = self._read_info()
        self.config = self._read_config()

    @classmethod
    def create(cls, path: Path, config: TrainConfig) -> "RunFolder":
        """Makes the folder and writes the resolved configuration and versions into it.

        Raises:
            RunFolderError: The folder exists and is not empty, or cannot be made.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            is_run = (path / "run.json").exists()
            resume = f"go on with it by `serl train --resume {path}`, or " if is_run else ""
            raise RunFolderError(f"{path} exists already; {resume}name another with --run")
        created = datetime.datetime.now().astimezone()
        info = RunInfo(
            format=FORMAT,
            run_id=f"{path.name}-{created:%Y%m%d%H%M%S}",
            created=created.isoformat(timespec="seconds"),
            machine=f"{platform.node()}, {platform.platform()}, Python {platform.python_version()}",
            versions={name: importlib.metadata.version(name) for name in PACKAGES if _is_installed(name)},
        )
        try:
            for name in ("demos", "episodes", "journal", "spool", "checkpoints", "metrics", "logs"):
                (path / name).mkdir(parents=True, exist_ok=True)
            (path / "config.yaml").write_bytes(msgspec.yaml.encode(config))
            text = msgspec.json.format(msgspec.json.encode(info))
            write_durably(path / "run.json", text)  # last: it is what makes a run of the folder
        except OSError as error:
            raise RunFolderError(
                f"cannot make the run folder {path}: {error}; name another with --run"
            ) from error
        return cls(path)

    @property
    def has_demonstrations(self) -> bool:
        return any(self.demos.iterdir())

    def hold_files(self) -> None:
        """Notes which files the run goes by beside its configuration, the classifier that judges and the weights of a
        frozen backbone; on a later start, that they are the same. A classifier that is not on this machine is passed
        over: it is the actor's, who says so.

        Raises:
            RunFolderError: One is another: what the run has learned goes with the one before.
            BadEncoder: The weights are not there.
        """
        known: dict[str, str] = msgspec.json.decode(self.files.read_bytes()) if self.files.exists() else {}
        found = self._digests()
        for what, (name, digest) in found.items():
            if known.get(what, digest) != digest:
                raise RunFolderError(
                    f"{name} is not the {what} that {self.path} began with (was it trained again?); put that one back "
                    "there, or start a new run"
                )
        if found.keys() - known.keys():
            known |= {what: digest for what, (_, digest) in found.items()}
            write_durably(self.files, msgspec.json.encode(known))

    def _digests(self) -> dict[str, tuple[str, str]]:
        """Where each of the files is, and what tells it from another."""
        found = {}
        kind, _, model = self.config.reward.partition(":")
        if kind == "classifier" and Path(model).is_file():
            found["classifier"] = model, hashlib.sha256(Path(model).read_bytes()).hexdigest()
        encoder = self.config.agent.encoder
        if encoder.frozen:
            from serl_suite.networks.weights import weights_fingerprint  # torch, which few commands need

            found["backbone"] = str(encoder.weights), str(weights_fingerprint(encoder))
        return found

    def announce(self, address: str) -> None:
        """Tells the actors of this machine where the learner listens."""
        temporary = self.address.with_suffix(".new")
        temporary.write_text(address)
        temporary.replace(self.address)

    def wait_for_address(self, stop: Event, timeout_s: float = 60.0) -> str:
        """Returns what the learner announced; an empty string once `stop` is set.

        Raises:
            RunFolderError: Nothing was announced in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.address.exists() and not stop.wait(0.02):
            if time.monotonic() > deadline:
                raise RunFolderError(
                    f"no learner runs on {self.path}; start one: serl learner --resume {self.path}"
                )
        return self.address.read_text() if self.address.exists() else ""

    def _read_info(self) -> RunInfo:
        try:
            info = msgspec.json.decode((self.path / "run.json").read_bytes(), type=RunInfo)
        except FileNotFoundError:
            raise RunFolderError(_no_run(self.path)) from None
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            raise RunFolderError(f"{self.path / 'run.json'} cannot be read: {error}") from error
        if info.format != FORMAT:
            raise RunFolderError(
                f"{self.path} has run format {info.format}, of serl-suite {info.versions.get('serl-suite', '?')}; "
                f"this version reads format {FORMAT}. Install that version, or start a new run with --demos {self.path}"
            )
        return info

    def _read_config(self) -> TrainConfig:
        path = self.path / "config.yaml"
        try:
            return msgspec.yaml.decode(path.read_bytes(), type=TrainConfig)
        except (OSError, msgspec.DecodeError) as error:
            raise RunFolderError(f"{path}: {error}; mend it, or start a new run") from error


def _is_installed(name: str) -> bool:
    return any(importlib.metadata.distributions(name=name))


def _no_run(path: Path) -> str:
    siblings = (
        [p.name for p in path.parent.iterdir() if (p / "run.json").exists()] if path.parent.is_dir() else []
    )
    near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.3)
    hint = f"; did you mean {path.parent / near[0]}?" if near else "; `serl train` makes one under runs/"
    return f"{path} is not a run folder (no run.json in it){hint}"
