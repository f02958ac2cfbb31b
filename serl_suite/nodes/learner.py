"""The learner process: takes in what actors did, pays the updates that this owes, publishes the policy."""

import logging
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from threading import Event

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from serl_suite.agents.agent import Agent, BadAgent
from serl_suite.agents.checkpoint import load_checkpoint, save_checkpoint
from serl_suite.agents.registry import describe, make_agent, make_policy
from serl_suite.data.episodes import read_dataset
from serl_suite.data.journal import Journal
from serl_suite.data.replay import Replay, mixed_sample
from serl_suite.networks.host import tune_host
from serl_suite.nodes.config import ActorSettings
from serl_suite.nodes.ingest import Ingest
from serl_suite.nodes.metrics import MetricsWriter
from serl_suite.nodes.run_folder import RunFolder
from serl_suite.wire.keys import server_keys
from serl_suite.wire.messages import Step
from serl_suite.wire.records import FULL, DiskFull
from serl_suite.wire.spaces import EnvSpec

__all__ = ["Learner", "Outcome"]

log = logging.getLogger(__name__)

LOG_PERIOD_S = 1.0
MAX_STATE_DIM = 16_384
LINGER_S = 2.0
"""Actors of an earlier start get this long to come back and hear that training is over."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How training ended; written to outcome.json when it did."""

    reason: str
    passed: bool
    """Whether an evaluation during training passed."""
    env_steps: int
    updates: int
    policy_version: int
    training_s: float
    """Wall-clock of training, over all starts of the run."""


class _Counters(msgspec.Struct):
    """What a checkpoint keeps beside the agent and the replays' random state."""

    env_steps: int = 0
    updates: int = 0
    version: int = 0
    owed: float = 0.0
    frames: int = 0
    """Steps taken from the journal or the actors so far, resets included; recovery replays exactly these first."""
    forgiven: float = 0.0
    training_s: float = 0.0
    block_is_open: bool = False
    """Steps were taken whose updates are not all paid, so no policy that has learnt from them is published."""


class Learner:
    """One learner.

    The updates owed are `utd` for each new transition once `warmup_steps` are in. In lockstep, a block of transitions
    is taken, its updates are paid, a policy is published, and only then is the next block looked at: with one
    actor, the same seed gives the same bits. Paced by a robot, whatever has arrived is taken between two updates.

    Args:
        run: Folder of the run; a checkpoint and a journal found there are taken up.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run_folder = run
        self.config = run.config
        self.counters = _Counters()
        self.outcome: Outcome | None = None
        tune_host(self.config.learner.threads)
        self._lockstep = self.config.actor.pace == "lockstep"
        self._free = self.config.agent.utd == "free"
        self._utd = 0.0 if self.config.agent.utd == "free" else self.config.agent.utd
        """Updates that a transition owes; none where they run free."""
        self._demo_episodes = read_dataset(run.demos) if any(run.demos.iterdir()) else []
        self._spec: EnvSpec | None = self._demo_episodes[0].spec if self._demo_episodes else None
        self._pending: deque[tuple[str, Step]] = deque()
        self._pending_transitions = 0
        self._previous: dict[str, Step] = {}
        self._agent: Agent | None = None
        self._catching_up = False
        self._published_at = 0
        self._checkpointed_at = 0
        self._log = _Log()
        self._clock_s = time.monotonic()
        self._journal = Journal(run.path)
        self._queue(self._journal.recover())
        self._spec = self._spec or next(iter(self._journal.specs.values()), None)
        settings = self.config.learner
        keys = server_keys(folder=Path(settings.keys)) if settings.keys is not None else None
        bind = run.address.read_text() if run.address.exists() else settings.bind
        self._ingest = Ingest(bind, self._journal, run.info.run_id, keys=keys, check=self._check_spec)
        self._ingest.set_agent(msgspec.to_builtins(self._actor_settings()))

    def _actor_settings(self) -> ActorSettings:
        return ActorSettings(
            policy=describe("rlpd", self.config.agent),
            random_steps=0 if self._demo_episodes else self.config.learner.warmup_steps,
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
        if self._spec is not None:
            self._prepare(self._spec)
        self._clock_s = time.monotonic()
        while not stop.is_set() and self.outcome is None:
            self._train_once()
            self._log_when_due(metrics)

    def close(self) -> None:
        """Tells the actors, leaves checkpoint, policy and outcome behind, closes socket and journal."""
        try:
            self._leave_results()
        finally:
            self._ingest.close()
            self._journal.close()
            self.run_folder.address.unlink(missing_ok=True)

    def _leave_results(self) -> None:
        if self.outcome is not None:
            self._ingest.broadcast_stop(self.outcome.reason)
            deadline = time.monotonic() + LINGER_S
            while not self._ingest.sessions and time.monotonic() < deadline:
                time.sleep(0.05)
        if self._agent is not None:
            self._save_checkpoint(self._agent)
            if self.outcome is None or not self.outcome.passed:
                self._save_policy(self._agent.policy_state(), self.counters.version)
        if self.outcome is not None:
            self.run_folder.outcome.write_bytes(msgspec.json.encode(self.outcome))

    def _check_spec(self, spec: EnvSpec) -> str | None:
        """The first actor's spaces are the run's, unless demonstrations or the journal fixed them."""
        if self._spec is None:
            if spec.state_dim > MAX_STATE_DIM:
                return f"a state of {spec.state_dim} numbers; at most {MAX_STATE_DIM} can be learned on"
            try:
                make_policy(describe("rlpd", self.config.agent), spec, seed=0)
            except BadAgent as error:
                return str(error)
            self._spec = spec
        return self._spec.difference(spec)

    def _prepare(self, spec: EnvSpec) -> None:
        """Makes agent and replays, takes up the newest checkpoint, publishes the policy to start with."""
        settings, seed = self.config.learner, self.config.seed
        self._agent = make_agent("rlpd", self.config.agent, spec, seed=seed, device=settings.device)
        self._online = Replay(spec, settings.replay_capacity, seed=seed + 1, device=settings.device)
        self._demos = Replay(spec, settings.replay_capacity, seed=seed + 2, device=settings.device)
        for episode in self._demo_episodes:
            for step in episode.steps:
                self._demos.insert(f"demo/{episode.session_id}/{episode.number}", step)
        if self._demo_episodes:
            self._agent.fit_normaliser(self._demos.states())
        newest_used = max((step.policy_version for _, step in self._pending), default=-1)
        self._restore(self._agent)
        if not self._lockstep:  # actors take newer versions only, and a killed learner had published some
            self.counters.version = max(self.counters.version, newest_used + 1)
        self._tell_progress()
        self._catching_up = self._lockstep and self._pending_transitions >= self.config.actor.block_steps
        if not self._catching_up:
            self._ingest.publish(self.counters.version, self._agent.policy_state())

    def _restore(self, agent: Agent) -> None:
        if not self.run_folder.checkpoint.exists():
            return
        tensors, meta = load_checkpoint(self.run_folder.checkpoint)
        self.counters = msgspec.convert(meta["counters"], _Counters)
        available = len(self._pending)
        if available < self.counters.frames:
            log.warning(
                "the journal holds %d steps of %d; the rest is sent again", available, self.counters.frames
            )
        for _ in range(min(self.counters.frames, available)):
            self._insert(*self._pending.popleft())
        self._pending_transitions = sum(step.index > 0 for _, step in self._pending)
        agent.load_state_dict(tensors)
        self._online.set_rng_state(meta["online_rng"])
        self._demos.set_rng_state(meta["demos_rng"])
        self._published_at, self._checkpointed_at = self.counters.updates, self.counters.env_steps
        log.info("resumed at %d env steps, %d updates", self.counters.env_steps, self.counters.updates)

    def _queue(self, steps: Iterable[tuple[str, Step]]) -> None:
        for session_id, step in steps:
            self._pending.append((session_id, step))
            self._pending_transitions += step.index > 0

    def _train_once(self) -> None:
        """Takes what may be taken, then pays one update, or waits for something to do."""
        assert self._agent is not None
        self._queue(self._ingest.drain())
        if not self._lockstep or (self.counters.owed < 1.0 and not self.counters.block_is_open):
            self._take_steps()
        if self.counters.owed >= 1.0:
            self._update(self._agent)
            self.counters.owed -= 1.0
        elif self._runs_free:
            self._update(self._agent)
            self._end_block(self._agent)
        else:
            self._end_block(self._agent)
            if self._pending_transitions < (self.config.actor.block_steps if self._lockstep else 1):
                self._ingest.wait(0.02)
        if (
            not self._lockstep
            and self.counters.updates - self._published_at >= self.config.learner.publish_every
        ):
            self._publish(self._agent)
        self._judge(self._agent)

    @property
    def _runs_free(self) -> bool:
        return self._free and self.counters.env_steps > self.config.learner.warmup_steps

    def _take_steps(self) -> None:
        """In lockstep one whole block, else everything that has arrived, and the updates that this owes."""
        wanted = self.config.actor.block_steps if self._lockstep else self._pending_transitions
        if self._pending_transitions < wanted or not self._pending:
            return
        while wanted > 0:
            session_id, step = self._pending.popleft()
            self._insert(session_id, step)
            self.counters.frames += 1
            if step.index > 0:
                wanted -= 1
                self._pending_transitions -= 1
                self._owe()
        self.counters.block_is_open = True
        self._tell_progress()

    def _insert(self, session_id: str, step: Step) -> None:
        """Into the online replay; an intervention into the demonstrations as well."""
        self._online.insert(session_id, step)
        if step.intervention:
            self._demos.insert(session_id, step, previous=self._previous.get(session_id))
        self._previous[session_id] = step

    def _owe(self) -> None:
        """One more transition: adds its updates to the debt, up to the cap."""
        self.counters.env_steps += 1
        if self.counters.env_steps == max(1, self.config.learner.warmup_steps) and not self._demo_episodes:
            assert self._agent is not None
            self._agent.fit_normaliser(self._online.states())
        if self.counters.env_steps > self.config.learner.warmup_steps:
            owed = self.counters.owed + self._utd
            self.counters.owed = min(owed, self.config.learner.max_owed_updates)
            self.counters.forgiven += owed - self.counters.owed

    def _update(self, agent: Agent) -> None:
        settings = self.config.agent
        batch = mixed_sample(self._online, self._demos, settings.batch_size, settings.demo_fraction)
        self._log.losses.update(agent.update(batch))
        self.counters.updates += 1

    def _end_block(self, agent: Agent) -> None:
        """Everything owed is paid: publishes, and writes a checkpoint when one is due."""
        if not self.counters.block_is_open:
            return
        self.counters.block_is_open = False
        if self._lockstep:
            self._publish(agent)
        if self.counters.env_steps - self._checkpointed_at >= self.config.learner.checkpoint_every:
            self._save_checkpoint(agent)

    def _publish(self, agent: Agent) -> None:
        self.counters.version += 1
        self._published_at = self.counters.updates
        self._tell_progress()
        if self._catching_up and self._pending_transitions >= self.config.actor.block_steps:
            return  # an actor that began with this policy would lag behind by the rest of the journal for ever
        self._catching_up = False
        self._ingest.publish(self.counters.version, agent.policy_state())

    def _tell_progress(self) -> None:
        received = self.counters.env_steps + self._pending_transitions
        self._ingest.set_progress(received, self.counters.owed + self._utd * self._pending_transitions)

    def _save_checkpoint(self, agent: Agent) -> None:
        """Only once all steps it counts are durable; where they cannot be, the checkpoint before stays."""
        if not self._ingest.flush():
            return
        meta = {
            "counters": msgspec.to_builtins(self.counters),
            "online_rng": self._online.rng_state(),
            "demos_rng": self._demos.rng_state(),
        }
        save_checkpoint(self.run_folder.checkpoint, agent.state_dict(), meta)
        self._checkpointed_at = self.counters.env_steps

    def _save_policy(self, arrays: dict[str, npt.NDArray[np.float32]], version: int) -> None:
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        save_checkpoint(self.run_folder.policy, tensors, {"version": version})

    def _judge(self, agent: Agent) -> None:
        """Ends the training when an evaluation has passed or the budget is spent."""
        for evaluation in self._ingest.take_evaluations():
            rate = sum(episode.success for episode in evaluation.episodes) / len(evaluation.episodes)
            log.info(
                "evaluation of policy %d: %.0f %% of %d",
                evaluation.version,
                100 * rate,
                len(evaluation.episodes),
            )
            if rate >= self.config.evaluation.attempt_pass_at:
                self._save_policy(evaluation.arrays, evaluation.version)
                return self._finish(f"policy {evaluation.version} passed its evaluation", evaluation.version)
        if self.counters.env_steps >= self.config.max_steps and self.counters.owed < 1.0:
            self._end_block(agent)
            if (
                self._published_at < self.counters.updates
            ):  # so that the policy that stays has a version of its own
                self._publish(agent)
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

    def _log_when_due(self, metrics: MetricsWriter) -> None:
        """Once a second of wall-clock: what the live view and the curves show."""
        now = time.monotonic()
        elapsed = now - self._log.time_s
        if elapsed < LOG_PERIOD_S:
            return
        counters, log_ = self.counters, self._log
        counters.training_s, self._clock_s = self._training_s(), now
        trained_steps = counters.env_steps - self.config.learner.warmup_steps
        record: dict[str, float | int | bool | None] = {
            name: float(value) for name, value in log_.losses.items()
        }
        record |= {
            "learner/training_s": counters.training_s,
            "learner/updates": counters.updates,
            "learner/updates_per_s": (counters.updates - log_.updates) / elapsed,
            "learner/steps_per_s": (counters.env_steps - log_.env_steps) / elapsed,
            "learner/realised_utd": counters.updates / trained_steps if trained_steps > 0 else None,
            "learner/updates_owed": counters.owed,
            "learner/updates_forgiven": counters.forgiven,
            "learner/policy_version": counters.version,
            "replay/online": len(self._online),
            "replay/demos": len(self._demos),
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
    losses: dict[str, torch.Tensor | float] = {}
