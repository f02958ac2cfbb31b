"""The learner process: takes in what actors did, pays the updates that this owes, publishes the policy."""

import logging
import runpy
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from threading import Event

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from serl_suite.agents.agent import BadAgent
from serl_suite.agents.registry import describe, make_policy
from serl_suite.agents.snapshot import Snapshot
from serl_suite.data.checkpoint import save_checkpoint
from serl_suite.data.episodes import read_dataset
from serl_suite.data.journal import Journal
from serl_suite.networks.encoder_config import BadEncoder
from serl_suite.networks.host import check_device, tune_host
from serl_suite.nodes.backlog import Backlog
from serl_suite.nodes.checkpoints import Checkpoints
from serl_suite.nodes.config import ActorSettings
from serl_suite.nodes.device_memory import DeviceFull
from serl_suite.nodes.experience import ReplayTooLarge, check_memory
from serl_suite.nodes.group import Group
from serl_suite.nodes.ingest import Ingest
from serl_suite.nodes.learner_state import Counters, learner_meta, restore_learner
from serl_suite.nodes.metrics import MetricsWriter
from serl_suite.nodes.outcome import Outcome, first_passed
from serl_suite.nodes.run_folder import RunFolder
from serl_suite.nodes.training import SharedTraining, Training, check_shares
from serl_suite.wire.keys import server_keys
from serl_suite.wire.records import FULL, DiskFull
from serl_suite.wire.spaces import EnvSpec

__all__ = ["Learner"]

log = logging.getLogger(__name__)

LOG_PERIOD_S = 1.0
MAX_STATE_DIM = 16_384
LINGER_S = 2.0
"""Actors of an earlier start get this long to come back and hear that training is over."""


class Learner:
    """One learner.

    The updates owed are `utd` for each new transition once `warmup_steps` are in. In lockstep, a block of transitions
    is taken, its updates are paid, a policy is published, and only then is the next block looked at: with one
    actor, the same seed gives the same bits. Paced by a robot, whatever has arrived is taken between two updates.

    Args:
        run: Folder of the run; a checkpoint and a journal found there are taken up.
        group: The processes that compute the updates together with this one, rank 0.

    Raises:
        BadConfig: They cannot share the batches, or are all to use one card.
        DeviceUnavailable: This machine has no such device.
        RunInUse: Another learner writes to the run.
        PortInUse, AddressError: Nothing can listen there.
        CorruptEpisode, SpecMismatch: A demonstration or an episode of the run is damaged, or of other spaces.
    """

    def __init__(self, run: RunFolder, group: Group | None = None) -> None:
        self.run_folder, self._group = run, group
        self.config = run.config
        if group is not None:
            check_shares(self.config.agent, group.ranks.size)
            group.with_own_device(self.config)
        self.counters = Counters()
        self.outcome: Outcome | None = None
        tune_host(self.config.learner.threads)
        check_device(self.config.learner.device)
        self._lockstep = self.config.actor.pace == "lockstep"
        self._free = self.config.agent.utd == "free"
        self._utd = 0.0 if self.config.agent.utd == "free" else self.config.agent.utd
        """Updates that a transition owes; none where they run free."""
        self._demo_episodes = read_dataset(run.demos) if any(run.demos.iterdir()) else []
        self._spec: EnvSpec | None = self._demo_episodes[0].spec if self._demo_episodes else None
        self._training: Training | None = None
        """None until it is known what to learn on, and the checkpoint before is taken up."""
        self._catching_up = False
        self._published_at = 0
        self._checkpointed_at = 0
        self._outgoing: tuple[int, Snapshot] | None = None
        """A policy's version, and what is on its way from the device."""
        self._log = _Log()
        self._successes: deque[bool] = deque(maxlen=self.config.evaluation.window)
        self._clock_s = time.monotonic()
        self._journal = Journal(run.path)
        self._backlog = Backlog(self._journal.recover())
        self._spec = self._spec or next(iter(self._journal.specs.values()), None)
        settings = self.config.learner
        keys = server_keys(folder=Path(settings.keys)) if settings.keys is not None else None
        bind = run.address.read_text() if run.address.exists() else settings.bind
        self._ingest = Ingest(bind, self._journal, run.info.run_id, keys=keys, check=self._check_spec)
        self._checkpoints = Checkpoints(run.checkpoint, self._ingest.flush)
        self._ingest.set_agent(msgspec.to_builtins(self._actor_settings()))

    def _actor_settings(self) -> ActorSettings:
        return ActorSettings(
            policy=describe("rlpd", self.config.agent),
            random_steps=0 if self._demo_episodes else self.config.learner.warmup_steps,
            obs=self.config.obs,
            reward=self.config.reward,
            pace=self.config.actor.pace,
            block_steps=self.config.actor.block_steps,
            most_owed=2.0 * self._utd * self.config.actor.block_steps,
            evaluation=self.config.evaluation,
        )

    @property
    def address(self) -> str:
        """Where actors connect to."""
        return self._ingest.address

    def run(self, stop: Event) -> Outcome | None:
        """Trains until the budget is spent, an evaluation passes or `stop` is set; returns None when stopped.

        Raises:
            BadCheckpoint, BadAgent: The checkpoint cannot be taken up; it stays as it is.
            ReplayTooLarge, DeviceFull: The replays, or the updates, do not fit into memory.
            DiskFull: The run folder takes no more; what actors were told to be durable is.
        """
        try:
            try:
                with MetricsWriter(self.run_folder.metrics, "learner") as metrics:
                    self._train(stop, metrics)
            finally:
                self.close()
        except OSError as error:
            if error.errno not in FULL:
                raise
            path = self.run_folder.path
            raise DiskFull(
                f"{path}: {error.strerror}; free space there, then `serl train --resume {path}` goes on"
            ) from error
        return self.outcome

    def _train(self, stop: Event, metrics: MetricsWriter) -> None:
        while self._spec is None and not stop.is_set():
            self._ingest.wait(0.05)
        if self._spec is None:
            return
        training = self._training = self._prepare(self._spec)
        self._clock_s = time.monotonic()
        while not stop.is_set() and self.outcome is None:
            try:
                self._train_once(training)
            except DeviceFull:
                self._training = None  # it stands in the middle of an update; the checkpoint before stays
                raise
            self._log_when_due(training, metrics)

    def close(self) -> None:
        """Tells the actors, leaves checkpoint, policy and outcome behind, closes socket and journal."""
        try:
            self._leave_results()
        finally:
            self._ingest.close()
            if (
                self.outcome is not None
            ):  # actors that died, or did not say goodbye in time, add nothing any more
                for session_id in self._journal.specs:
                    self._journal.finish(session_id)
            self._journal.close()
            self.run_folder.address.unlink(missing_ok=True)

    def _leave_results(self) -> None:
        if self.outcome is not None:
            self._ingest.broadcast_stop(self.outcome.reason)
            deadline = time.monotonic() + LINGER_S
            while not self._ingest.sessions and time.monotonic() < deadline:
                time.sleep(0.05)
        if self._training is not None:
            self._hand_out_policy(wait=True)
            self._begin_checkpoint(self._training)
            self._checkpoints.wait()
            if self.outcome is None or not self.outcome.passed:
                self._save_policy(self._training.agent.policy_state(), self.counters.version)
        if self.outcome is not None:
            self.run_folder.outcome.write_bytes(msgspec.json.encode(self.outcome))

    def _check_spec(self, spec: EnvSpec) -> str | None:
        """The first actor's spaces are the run's, unless demonstrations or the journal fixed them."""
        if self._spec is None:
            if spec.state_dim > MAX_STATE_DIM:
                return f"a state of {spec.state_dim} numbers; at most {MAX_STATE_DIM} can be learned on"
            try:
                check_memory(spec, self.config)
                make_policy(describe("rlpd", self.config.agent), spec, seed=0)
            except (BadAgent, BadEncoder, ReplayTooLarge) as error:
                return str(error)
            self._spec = spec
        return self._spec.difference(spec)

    def _prepare(self, spec: EnvSpec) -> Training:
        """Makes agent and replays, takes up the newest checkpoint, publishes the policy to start with."""
        training = self._make_training(spec)
        newest_used = self._backlog.newest_policy()
        if self.run_folder.checkpoint.exists():
            self.counters = restore_learner(self.run_folder.checkpoint, training, self._backlog)
            self._published_at, self._checkpointed_at = self.counters.updates, self.counters.env_steps
        if not self._lockstep:  # actors take newer versions only, and a killed learner had published some
            self.counters.version = max(self.counters.version, newest_used + 1)
        self._tell_progress()
        self._catching_up = self._lockstep and self._backlog.transitions >= self.config.actor.block_steps
        if not self._catching_up:
            self._ingest.publish(self.counters.version, training.agent.policy_state())
        return training

    def _make_training(self, spec: EnvSpec) -> Training:
        """Knows the demonstrations, and nothing else yet."""
        demonstrated = sum(len(episode) for episode in self._demo_episodes)
        if self._group is None:
            training = Training(spec, self.config, demonstrated)
        else:
            training = SharedTraining(spec, self.config, demonstrated, self._group)
        for episode in self._demo_episodes:
            for step in episode.steps:
                training.demonstrate(f"demo/{episode.session_id}/{episode.number}", step)
        if self._demo_episodes:
            training.fit_normaliser()
        return training

    def _train_once(self, training: Training) -> None:
        """Takes what may be taken, then pays one update, or waits for something to do."""
        self._hand_out_policy()
        if arrived := self._ingest.drain():
            self._backlog.add(arrived)
            self._tell_progress()
        if not self._lockstep or (self._is_paid(training) and not self.counters.block_is_open):
            self._take_steps(training)
        if not self._is_paid(training):
            self.counters.owed -= self._update(training)
        elif self._runs_free:
            self._update(training)
            self._end_block(training)
        else:
            self._end_block(training)
            if self._backlog.transitions < (self.config.actor.block_steps if self._lockstep else 1):
                self._ingest.wait(0.02)
        if (
            not self._lockstep
            and self._outgoing is None
            and self.counters.updates - self._published_at >= self.config.learner.publish_every
        ):
            self._publish(training)
        self._judge(training)

    @property
    def _runs_free(self) -> bool:
        return self._free and self.counters.env_steps > self.config.learner.warmup_steps

    def _take_steps(self, training: Training) -> None:
        """In lockstep one whole block, else everything that has arrived, and the updates that this owes."""
        wanted = self.config.actor.block_steps if self._lockstep else self._backlog.transitions
        if self._backlog.transitions < wanted or not self._backlog:
            return
        while wanted > 0:
            session_id, step = self._backlog.pop()
            training.insert(session_id, step)
            if step.ends_episode and step.success is not None:
                self._successes.append(step.success)
            self.counters.frames += 1
            if step.index > 0:
                wanted -= 1
                self._owe(training)
        self.counters.block_is_open = True
        self._tell_progress()

    def _owe(self, training: Training) -> None:
        """One more transition: adds its updates to the debt, up to the cap."""
        self.counters.env_steps += 1
        if self.counters.env_steps == max(1, self.config.learner.warmup_steps) and not self._demo_episodes:
            training.fit_normaliser()
        if self.counters.env_steps > self.config.learner.warmup_steps:
            owed = self.counters.owed + self._utd
            self.counters.owed = min(owed, self.config.learner.max_owed_updates)
            self.counters.forgiven += owed - self.counters.owed

    def _is_paid(self, training: Training) -> bool:
        return self.counters.owed < training.updates.next

    def _update(self, training: Training) -> int:
        """Returns how many updates it made."""
        count = training.updates.next
        self._log.losses.update(training.update())
        self.counters.updates += count
        return count

    def _end_block(self, training: Training) -> None:
        """Everything owed is paid: publishes, and writes a checkpoint when one is due."""
        if not self.counters.block_is_open:
            return
        self.counters.block_is_open = False
        if self._lockstep:
            self._publish(training)
        due = self.counters.env_steps - self._checkpointed_at >= self.config.learner.checkpoint_every
        if not self._checkpoints.is_writing and due:
            self._begin_checkpoint(training)

    def _publish(self, training: Training) -> None:
        self.counters.version += 1
        self._published_at = self.counters.updates
        self._tell_progress()
        self._hand_out_policy(wait=True)
        if self._catching_up and self._backlog.transitions >= self.config.actor.block_steps:
            return  # an actor that began with this policy would lag behind by the rest of the journal for ever
        self._catching_up = False
        self._outgoing = self.counters.version, Snapshot(training.agent.policy_tensors())
        self._hand_out_policy(wait=self._lockstep)

    def _hand_out_policy(self, *, wait: bool = False) -> None:
        """What `_publish` took, once it is here."""
        if self._outgoing is None or not (wait or self._outgoing[1].is_ready):
            return
        (version, snapshot), self._outgoing = self._outgoing, None
        arrays = {name: tensor.numpy().copy() for name, tensor in snapshot.tensors().items()}
        self._ingest.publish(version, arrays)

    def _tell_progress(self) -> None:
        waiting = self._backlog.transitions
        self._ingest.set_progress(self.counters.env_steps + waiting, self.counters.owed + self._utd * waiting)

    def _begin_checkpoint(self, training: Training) -> None:
        meta = learner_meta(self.counters, training)
        self._checkpoints.begin(Snapshot(training.agent.state_tensors()), meta)
        self._checkpointed_at = self.counters.env_steps

    def _save_policy(self, arrays: Mapping[str, npt.NDArray[np.float32]], version: int) -> None:
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        save_checkpoint(self.run_folder.policy, tensors, {"version": version})

    def _judge(self, training: Training) -> None:
        """Ends the training when an evaluation has passed or the budget is spent."""
        passed = first_passed(self._ingest.take_evaluations(), self.config.evaluation.attempt_pass_at)
        if passed is not None:
            self._save_policy(passed.arrays, passed.version)
            self._finish(f"policy {passed.version} passed its evaluation", passed.version)
        elif self.counters.env_steps >= self.config.max_steps and self._is_paid(training):
            self._end_block(training)
            if self._published_at < self.counters.updates:  # the policy that stays has a version of its own
                self._publish(training)
            self._finish(f"the budget of {self.config.max_steps} env steps is spent", None)

    def _finish(self, reason: str, passed_version: int | None) -> None:
        self.outcome = Outcome(
            reason=reason,
            passed=passed_version is not None,
            env_steps=self.counters.env_steps,
            updates=self.counters.updates,
            policy_version=self.counters.version if passed_version is None else passed_version,
            training_s=self._training_s(),
        )

    def _training_s(self) -> float:
        return self.counters.training_s + time.monotonic() - self._clock_s

    def _log_when_due(self, training: Training, metrics: MetricsWriter) -> None:
        """Once a second of wall-clock: what the live view and the curves show."""
        now = time.monotonic()
        elapsed = now - self._log.time_s
        if elapsed < LOG_PERIOD_S:
            return
        counters, log_ = self.counters, self._log
        log_.outgoing = log_.outgoing or Snapshot(log_.losses)
        if not log_.outgoing.is_ready:
            return
        losses, log_.outgoing = log_.outgoing.tensors(), None
        counters.training_s, self._clock_s = self._training_s(), now
        trained_steps = counters.env_steps - self.config.learner.warmup_steps
        record: dict[str, float | int | bool | None] = {name: float(loss) for name, loss in losses.items()}
        record |= {
            "learner/training_s": counters.training_s,
            "learner/updates": counters.updates,
            "learner/updates_per_s": (counters.updates - log_.updates) / elapsed,
            "learner/steps_per_s": (counters.env_steps - log_.env_steps) / elapsed,
            "learner/realised_utd": counters.updates / trained_steps if trained_steps > 0 else None,
            "learner/updates_owed": counters.owed,
            "learner/updates_forgiven": counters.forgiven,
            "learner/policy_version": counters.version,
            "replay/online": len(training.experience.online),
            "replay/demos": len(training.experience.demos),
            "episode/success_rate": sum(self._successes) / len(self._successes) if self._successes else None,
            "wire/dropped": sum(
                self._ingest.counters[name] for name in ("malformed", "oversized", "refused", "gaps")
            ),
        }
        metrics.write(counters.env_steps, record)
        log_.time_s, log_.updates, log_.env_steps = now, counters.updates, counters.env_steps


class _Log(msgspec.Struct):
    """What the last record was written from."""

    time_s: float = 0.0
    updates: int = 0
    env_steps: int = 0
    losses: dict[str, torch.Tensor] = {}
    """Of the newest update, where it was made."""
    outgoing: Snapshot | None = None
    """Losses on their way from the device."""


if (
    __name__ == "__main__"
):  # torchrun -m serl_suite.nodes.learner: the command by which people start one, in each process
    sys.argv.insert(1, "learner")
    runpy.run_module("serl_suite.cli.main", run_name="__main__", alter_sys=True)
