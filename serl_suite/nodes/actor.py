"""The actor process: environment and policy on the robot's side; what happens goes to the learner as it happens."""

import logging
import time
import uuid
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from serl_suite.agents.registry import make_policy
from serl_suite.errors import SerlError
from serl_suite.nodes.config import ActorSettings, TrainConfig
from serl_suite.nodes.environment import Environment
from serl_suite.nodes.evaluation import evaluate
from serl_suite.nodes.metrics import MetricsWriter
from serl_suite.nodes.unreachable import likely_cause
from serl_suite.wire.client import ActorClient, LearnerUnreachable
from serl_suite.wire.keys import ClientKeys
from serl_suite.wire.messages import Observation, Step, Weights, Welcome
from serl_suite.wire.records import FULL, DiskFull

__all__ = ["Actor", "SettingsDiffer"]

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 30.0
CONNECT_TURN_S = 0.1
WAITING_PERIOD_S = 5.0
SILENCE_S = 3.0
"""A learner not heard for so long is mentioned."""
STATUS_PERIOD_S = 10.0
DRAIN_S = 1.0
"""At the end the learner gets this long to acknowledge; what it does not stays in the spool for the next start."""


class SettingsDiffer(SerlError):
    """Actor and learner were told different things."""


class Actor:
    """One actor.

    In lockstep, the actor takes a block of steps, then the next policy in order: it acts on block k + 1 with the
    policy that has learnt from blocks up to k - 1 while the learner works on block k. In real time, it keeps the
    environment's rate, takes the newest policy at each step, and never waits for the network.

    Args:
        config: The run's configuration.
        address: The learner's.
        spool: Folder for steps that the learner has not acknowledged; those of a killed actor are sent first.
        metrics: Folder for actor.jsonl and TensorBoard.
        keys: CURVE keys, needed off loopback.
        number: Tells several actors of one learner apart; part of the seed.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        address: str,
        spool: Path,
        metrics: Path,
        keys: ClientKeys | None = None,
        number: int = 0,
    ) -> None:
        torch.set_num_threads(1)
        self.config = config
        self.number = number
        self._address = address
        self._has_keys = keys is not None
        self._lockstep = config.actor.pace == "lockstep"
        self._environment = Environment.of(config, disagreements=metrics.parent / "disagreements")
        with ExitStack() as undone:
            undone.callback(self._environment.close)
            self._client = ActorClient(
                address,
                uuid.uuid4().hex,
                self._environment.spec,
                spool,
                keys=keys,
                actor_name=f"actor-{number}",
                in_order_weights=self._lockstep,
            )
            undone.pop_all()
        self._metrics = MetricsWriter(metrics, "actor" if number == 0 else f"actor-{number}")
        self._seq = 0
        self._block_seq = 0
        """Of the first step after the last block boundary."""
        self._episode = 0
        self._transitions = 0
        self._last_attempt = 0
        self._version = self._first_version = -1
        self._said_at = 0.0
        self._last_tick: float | None = None
        self._periods_s: list[float] = []

    def run(self, stop: Event) -> str:
        """Acts until the learner ends the training or `stop` is set; returns why it ended.

        Raises:
            LearnerUnreachable: No learner answered within `CONNECT_TIMEOUT_S`.
            SpecRefused: The learner trains on other spaces.
            SettingsDiffer: The learner runs at another pace, or is of another version.
            BadStep: The environment observed or rewarded something that is not finite, or out of its spaces.
            EnvironmentFailure: The policy chose an action that is not finite.
            DiskFull: There is no room for unacknowledged steps or for metrics.
        """
        try:
            with self._metrics:
                self._act_until_over(stop)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise DiskFull(f"{error.filename or 'metrics'}: {error.strerror}; free space there") from error
        finally:
            self._client.close(DRAIN_S)
            self._environment.close()
        return self._client.stop_reason or "stopped"

    def _act_until_over(self, stop: Event) -> None:
        welcome = self._connect(stop)
        if welcome is None:
            return
        while self._client.progress.newest_version < 0 and not self._over(stop):
            stop.wait(0.02)  # until told how far training is
        self._first_env_step = self._client.progress.env_steps
        settings = self._settings = self._checked(welcome)
        self._successes: deque[bool] = deque(maxlen=settings.evaluation.window)
        self._random_steps = max(0, settings.random_steps - self._first_env_step)
        seeds = np.random.SeedSequence([self.config.seed, self.number, self._first_env_step])
        self._rng = np.random.default_rng(seeds)
        self._policy = make_policy(
            settings.policy, self._environment.spec, seed=int(seeds.generate_state(1)[0])
        )
        self._wait_for_policy(stop)
        self._first_version = self._version
        while not self._over(stop):
            self._run_episode(stop)
            self._attempt_evaluation(stop)

    def _checked(self, welcome: Welcome) -> ActorSettings:
        try:
            settings = msgspec.convert(welcome.agent, ActorSettings)
        except msgspec.ValidationError as error:
            raise SettingsDiffer(
                f"the learner's welcome is of another version: {error}; install the same"
            ) from error
        if settings.pace != self.config.actor.pace:
            raise SettingsDiffer(
                f"the learner's pace is {settings.pace}, this actor's {self.config.actor.pace}; start this actor "
                f"with --actor.pace {settings.pace}, or the learner's run with the other"
            )
        if settings.obs != self.config.obs:
            raise SettingsDiffer(
                f"the learner's run is of {settings.obs}, this actor's of {self.config.obs}; start this actor with "
                f"--obs {settings.obs}"
            )
        judge, here = (reward.partition(":")[0] for reward in (settings.reward, self.config.reward))
        if judge != here:
            raise SettingsDiffer(
                f"in the learner's run {settings.reward} judges success, at this actor {self.config.reward}; start it "
                f"with --reward {settings.reward}, the model being where it is on this machine"
            )
        return settings

    def _connect(self, stop: Event) -> Welcome | None:
        """Waits for the learner in short turns, so that a Ctrl-C ends the waiting; None when it did."""
        log.info("waiting for a learner at %s", self._address)
        began = time.monotonic()
        said_at = began
        while not stop.is_set():
            try:
                welcome = self._client.connect(CONNECT_TURN_S)
            except LearnerUnreachable:
                now = time.monotonic()
                if now - began > CONNECT_TIMEOUT_S:
                    cause = likely_cause(self._address, has_keys=self._has_keys)
                    raise LearnerUnreachable(
                        f"no answer from a learner at {self._address} within {CONNECT_TIMEOUT_S:g} s: {cause}. A "
                        f"learner is started with `serl learner {self.config.task} --learner.bind ADDRESS`"
                    ) from None
                if now - said_at > WAITING_PERIOD_S:
                    said_at = now
                    cause = likely_cause(self._address, has_keys=self._has_keys)
                    log.warning("no answer for %.0f s: %s; still waiting", now - began, cause)
            else:
                log.info("connected to run %s", welcome.run_id)
                self._said_at = time.monotonic()
                return welcome
        return None

    def _say_how_it_goes(self) -> None:
        """A line every `STATUS_PERIOD_S`."""
        now = time.monotonic()
        if now - self._said_at < STATUS_PERIOD_S:
            return
        self._said_at = now
        progress = self._client.progress
        parts = [f"step {self.env_steps}", f"episode {self._episode}"]
        if self._successes:
            parts.append(f"success {sum(self._successes)} of {len(self._successes)}")
        parts.append(f"policy {self._version} of {max(self._version, progress.newest_version)}")
        parts.append(f"unacknowledged {progress.unacked}")
        if progress.heard_s > SILENCE_S:
            parts.append(f"no word from the learner for {progress.heard_s:.0f} s")
        log.info("%s", ", ".join(parts))

    @property
    def env_steps(self) -> int:
        """Transitions of this run as this actor counts them."""
        return self._first_env_step + self._transitions

    def _over(self, stop: Event) -> bool:
        return stop.is_set() or self._client.stop_reason is not None

    def _run_episode(self, stop: Event) -> None:
        started = time.monotonic()
        observation = self._environment.reset(seed=int(self._rng.integers(2**31)))
        self._put(0, observation)
        index, episode_return, done, success = 0, 0.0, False, None
        next_tick = time.monotonic()
        while not done:
            if self._over(stop):
                return
            self._say_how_it_goes()
            self._take_policy(stop)
            action = self._act(observation)
            observation, reward, terminated, truncated, success = self._environment.step(action)
            if self._environment.is_stale:
                log.warning("a camera has failed: this step is left out, and ends the episode")
                break
            index, episode_return, done = index + 1, episode_return + reward, terminated or truncated
            self._put(
                index,
                observation,
                action=action,
                reward=reward,
                terminated=terminated,
                truncated=truncated,
                success=success,
            )
            self._transitions += 1
            if not self._lockstep:
                next_tick = self._keep_rate(next_tick, stop)
        if success is not None:
            self._successes.append(success)
        self._record_episode(success, episode_return, index, time.monotonic() - started)
        self._episode += 1

    def _act(self, observation: Observation) -> npt.NDArray[np.float32]:
        if self._transitions < self._random_steps:
            unit = self._rng.uniform(-1.0, 1.0, self._environment.spec.action_dim).astype(np.float32)
        else:
            unit = self._policy.act(observation, explore=True)
        return self._environment.scale.to_env(unit)

    def _put(
        self,
        index: int,
        observation: Observation,
        *,
        action: npt.NDArray[np.float32] | None = None,
        reward: float = 0.0,
        terminated: bool = False,
        truncated: bool = False,
        success: bool | None = None,
    ) -> None:
        step = Step(
            seq=self._seq,
            episode=self._episode,
            index=index,
            observation=observation,
            policy_version=self._version,
            time_s=index / self._environment.spec.rate_hz,
            action=action,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            success=success,
        )
        self._client.put(step)
        self._seq += 1

    def _wait_for_policy(self, stop: Event) -> None:
        while not self._over(stop):
            weights = self._client.wait_weights(self._version + 1, 0.05)
            if weights is not None:
                self._apply(weights)
                return

    def _take_policy(self, stop: Event) -> None:
        if not self._lockstep:
            weights = self._client.take_weights()
            if weights is not None:
                self._apply(weights)
        elif self._transitions and self._transitions % self._settings.block_steps == 0:
            self._await_block(stop)

    def _apply(self, weights: Weights) -> None:
        self._policy.load(weights.arrays)
        self._arrays, self._version = weights.arrays, weights.version

    def _await_block(self, stop: Event) -> None:
        """Lockstep: after block j, the policy that has learnt from block j - 1 is due, and the updates owed for block
        j - 1 are counted in what the learner says: several actors that went by older news would pile up steps."""
        blocks = self._transitions // self._settings.block_steps
        while self._version < self._first_version + blocks - 1 and not self._over(stop):
            self._say_how_it_goes()
            weights = self._client.wait_weights(self._version + 1, 0.05)
            if weights is not None:
                self._apply(weights)
        while not self._over(stop):
            self._say_how_it_goes()
            progress = self._client.progress
            counted = progress.acked_seq >= self._block_seq - 1
            if counted and progress.updates_owed <= self._settings.most_owed:
                break
            stop.wait(0.005)
        self._block_seq = self._seq

    def _keep_rate(self, next_tick: float, stop: Event) -> float:
        """Real time: sleeps to the end of the period; a late step starts the next period at once."""
        period_s = 1.0 / self._environment.spec.rate_hz
        next_tick += period_s
        delay = next_tick - time.monotonic()
        if delay > 0:
            stop.wait(delay)
        else:
            next_tick -= delay
        now = time.monotonic()
        if self._last_tick is not None:
            self._periods_s.append(now - self._last_tick)
        self._last_tick = now
        return next_tick

    def _record_episode(
        self, success: bool | None, episode_return: float, length: int, wall_s: float
    ) -> None:
        progress = self._client.progress
        record: dict[str, float | bool | None] = {
            "episode/number": self._episode,
            "episode/success": success,
            "episode/return": episode_return,
            "episode/length": length,
            "episode/success_rate": float(np.mean(self._successes)) if self._successes else None,
            "actor/steps_per_s": length / wall_s,
            "actor/robot_time_s": self.env_steps / self._environment.spec.rate_hz,
            "actor/policy_version": self._version,
            "actor/policy_staleness": progress.newest_version - self._version,
            "actor/unacknowledged": progress.unacked,
        }
        if self._periods_s:
            record["actor/period_p50_s"], record["actor/period_p99_s"] = np.percentile(
                self._periods_s, [50, 99]
            ).tolist()
            self._periods_s.clear()
        self._metrics.write(self.env_steps, record)

    def _attempt_evaluation(self, stop: Event) -> None:
        """Once training episodes succeed often enough, measures the deterministic policy and tells the learner."""
        settings = self._settings.evaluation
        window_full = len(self._successes) == settings.window
        due = self._transitions - self._last_attempt >= settings.attempt_every
        if self._over(stop) or not (window_full and due and np.mean(self._successes) >= settings.attempt_at):
            return
        self._last_attempt = self._transitions
        log.info("trying policy %d on %d episodes", self._version, settings.attempt_episodes)
        episodes = list(
            evaluate(
                self._environment,
                self._policy,
                episodes=settings.attempt_episodes,
                seed=self.config.seed + 1 + self._transitions,
                should_stop=lambda: self._over(stop),
            )
        )
        if len(episodes) < settings.attempt_episodes:
            return
        successes = sum(episode.success for episode in episodes)
        log.info("policy %d: %d of %d succeeded", self._version, successes, len(episodes))
        self._client.send_evaluation(self._version, self.env_steps, episodes, self._arrays)
        self._metrics.write(
            self.env_steps,
            {
                "evaluation/success_rate": successes / len(episodes),
                "evaluation/return": float(np.mean([episode.episode_return for episode in episodes])),
                "evaluation/length": float(np.mean([episode.length for episode in episodes])),
            },
        )
        self._last_tick = None
