"""One arm of the passivity study: a policy trained with or without an energy constraint, behind the filter or not.

Training runs in this process, step by step, from the actions that were executed after tank and filter had their say;
a task for it tells them in `info["executed_action"]`, with `info["cost"]` and `info["work_j"]`, and is made with
`passivity=`.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import gymnasium
import msgspec
import numpy as np

from serl_suite.agents.lagrangian import LagrangianConfig, LagrangianRLPD
from serl_suite.agents.recovery import RecoveryConfig, RecoveryRLPD, risk_batch
from serl_suite.agents.rlpd import RLPD
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.data.mixing import mixed_sample
from serl_suite.data.replay import Replay
from serl_suite.errors import SerlError
from serl_suite.nodes.environment import Expert, load_plugins
from serl_suite.nodes.evaluation import SEED_OFFSET
from serl_suite.wire.messages import Observation, Step, check_step
from serl_suite.wire.spaces import EnvSpec, env_spec

__all__ = [
    "ARMS",
    "Arm",
    "ArmResult",
    "EpisodeRecord",
    "MixedStudy",
    "NoEnergyAccount",
    "Study",
    "StudySettings",
    "run_arm",
]

DEMO_SEED = 20_000
INITIAL_MULTIPLIER = 0.3
"""Of a Lagrangian agent, per joule: a study is too short for a slow multiplier to come from far."""
Form = Literal["lagrangian", "recovery"]


class NoEnergyAccount(SerlError):
    """The task has no energy account to study."""


class MixedStudy(SerlError):
    """A folder holds results of other settings."""


class Arm(NamedTuple):
    """One of the four: trained aware of energy or not, behind the filter or not, in training and evaluation alike."""

    aware: bool
    filtered: bool

    @property
    def name(self) -> str:
        """For people and file names."""
        return f"{'aware' if self.aware else 'agnostic'}-{'on' if self.filtered else 'off'}"


ARMS = (Arm(False, False), Arm(False, True), Arm(True, False), Arm(True, True))


class StudySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all arms share."""

    task: str = "FrankaMaze-v0"
    steps: int = 6000
    """Env steps of training."""
    warmup_steps: int = 100
    """Uniformly random steps before the first update."""
    utd: int = 4
    """Updates per env step."""
    demo_episodes: int = 20
    """Of the task's scripted expert."""
    demo_noise: float = 0.2
    """Of the expert's actions."""
    episodes: int = 30
    """Of the evaluation, with the policy's mode."""
    form: Form = "lagrangian"
    """How the aware arms are: energy used as a constraint, or a recovery policy against violations."""
    energy_limit_j: float = 0.2
    """Discounted energy that a Lagrangian policy may expect to use."""


class EpisodeRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one episode came to."""

    success: bool
    length: int
    violations: int
    """Steps with T < T_min or P > P_max."""
    energy_j: float
    """Sum over the steps of the energy that went into the arm, where it did."""
    peak_force_n: float
    """Greatest external force at the tool."""


class ArmResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Training and evaluation of one arm with one seed."""

    aware: bool
    filtered: bool
    seed: int
    settings: StudySettings
    training: list[EpisodeRecord]
    evaluation: list[EpisodeRecord]


class _Tally:
    """Adds up an episode."""

    def __init__(self) -> None:
        self.length = self.violations = 0
        self.energy_j = self.peak_force_n = 0.0

    def add(self, observation: Observation, info: dict[str, Any]) -> None:
        self.length += 1
        self.violations += info["cost"] > 0.0
        self.energy_j += max(0.0, info["work_j"])
        self.peak_force_n = max(self.peak_force_n, float(np.linalg.norm(observation["wrench"][:3])))

    def record(self, success: bool) -> EpisodeRecord:
        return EpisodeRecord(
            success=success, length=self.length, violations=self.violations, energy_j=self.energy_j,
            peak_force_n=self.peak_force_n,
        )  # fmt: skip


def run_arm(
    arm: Arm, settings: StudySettings, seed: int, on_step: Callable[[int], None] = lambda step: None
) -> ArmResult:
    """Trains and evaluates one arm.

    Args:
        arm: Which one.
        settings: Shared by all.
        seed: Of demonstrations, environment, networks and sampling.
        on_step: Called with the number of env steps taken.

    Raises:
        NoEnergyAccount: The task has none, or no scripted expert.
    """
    load_plugins()
    try:
        env = gymnasium.make(settings.task, passivity=arm.filtered)
    except TypeError as error:
        raise NoEnergyAccount(f"{settings.task} has no energy tank to switch; try FrankaMaze-v0") from error
    try:
        return Study(env, arm, settings, seed).run(on_step)
    finally:
        env.close()


class Study:
    """An arm with its environment, agent and replays.

    Args:
        env: Made with the arm's `passivity`.
        arm: Which one.
        settings: Shared by all.
        seed: Of everything.

    Raises:
        NoEnergyAccount: The environment has no scripted expert.
    """

    def __init__(self, env: gymnasium.Env, arm: Arm, settings: StudySettings, seed: int) -> None:
        self.env, self.arm, self.settings, self.seed = env, arm, settings, seed
        self.spec: EnvSpec = env_spec(settings.task, env)
        self.agent = _make_agent(arm, settings, self.spec, seed)
        capacity = settings.steps + settings.steps // 10 + 200
        self.online = Replay(self.spec, capacity, seed=seed, costs=True)
        self.demos = Replay(self.spec, 200 * max(settings.demo_episodes, 1), seed=seed + 1, costs=True)
        self.violating = Replay(self.spec, 2 * capacity, seed=seed + 2, costs=True)
        self._previous: Step | None = None
        self._seq = self._episode = 0
        self._rng = np.random.default_rng(seed)

    def run(self, on_step: Callable[[int], None]) -> ArmResult:
        """Demonstrates, trains and evaluates; `on_step` is told the number of env steps taken."""
        self._demonstrate()
        training = self._train(on_step)
        first = self.seed + SEED_OFFSET
        evaluation = [self._evaluate(first + number) for number in range(self.settings.episodes)]
        return ArmResult(
            aware=self.arm.aware, filtered=self.arm.filtered, seed=self.seed, settings=self.settings,
            training=training, evaluation=evaluation,
        )  # fmt: skip

    def _demonstrate(self) -> None:
        make = getattr(self.env.unwrapped, "make_expert", None)
        if make is None:
            raise NoEnergyAccount(f"{self.settings.task} has no scripted expert; try FrankaMaze-v0")
        expert: Expert = make(noise=self.settings.demo_noise, seed=self.seed)
        for number in range(self.settings.demo_episodes):
            observation = self._reset(DEMO_SEED + self.seed + number, self.demos)
            expert.reset()
            over = False
            while not over:
                observation, over, _, _ = self._step(expert.act(observation), self.demos)

    def _train(self, on_step: Callable[[int], None]) -> list[EpisodeRecord]:
        records, tally = [], _Tally()
        observation = self._reset(self.seed, self.online)
        for step in range(self.settings.steps):
            if step < self.settings.warmup_steps:
                action = self._rng.uniform(-1.0, 1.0, self.spec.action_dim).astype(np.float32)
            else:
                action = self.agent.act(observation, explore=True)
            observation, over, success, info = self._step(action, self.online)
            tally.add(observation, info)
            if over:
                records.append(tally.record(success))
                tally = _Tally()
                observation = self._reset(None, self.online)
            if step + 1 == self.settings.warmup_steps:
                self.agent.fit_normaliser(np.concatenate([self.online.states(), self.demos.states()]))
            if step + 1 >= self.settings.warmup_steps:
                for _ in range(self.settings.utd):
                    self._update()
            on_step(step + 1)
        return records

    def _update(self) -> None:
        config = self.agent.config
        self.agent.update(mixed_sample(self.online, self.demos, config.batch_size, config.demo_fraction))
        if isinstance(self.agent, RecoveryRLPD):
            self.agent.update_risk(risk_batch(self.agent.config, self.online, self.violating))

    def _evaluate(self, seed: int) -> EpisodeRecord:
        observation, _ = self.env.reset(seed=seed)
        tally, over, success = _Tally(), False, False
        while not over:
            action = self.agent.act(self.spec.wrap(observation), explore=False)
            observation, _, terminated, truncated, info = self.env.step(action)
            tally.add(observation, info)
            over, success = terminated or truncated, bool(info["is_success"])
        return tally.record(success)

    def _reset(self, seed: int | None, replay: Replay) -> Observation:
        observation, _ = self.env.reset(seed=seed)
        self._episode += 1
        wrapped = self.spec.wrap(observation)
        self._insert(replay, Step(seq=self._seq, episode=self._episode, index=0, observation=wrapped))
        return wrapped

    def _step(self, action: np.ndarray, replay: Replay) -> tuple[Observation, bool, bool, dict[str, Any]]:
        """Takes a step and keeps it with the action that was executed."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if "executed_action" not in info:
            raise NoEnergyAccount(f"{self.settings.task} does not tell what was executed; try FrankaMaze-v0")
        assert self._previous is not None
        wrapped = self.spec.wrap(observation)
        energy_form = self.settings.form == "lagrangian"
        cost = max(0.0, info["work_j"]) if energy_form else info["cost"]
        step = Step(
            seq=self._seq, episode=self._episode, index=self._previous.index + 1, observation=wrapped,
            action=info["executed_action"], reward=float(reward), cost=cost, terminated=bool(terminated),
            truncated=bool(truncated),
        )  # fmt: skip
        previous = self._previous
        self._insert(replay, step)
        if info["cost"] > 0.0:
            self.violating.insert("study", step, previous=previous)
        return wrapped, bool(terminated or truncated), bool(info["is_success"]), info

    def _insert(self, replay: Replay, step: Step) -> None:
        check_step(self.spec, step)
        replay.insert("study", step)
        self._previous = step
        self._seq += 1


def _make_agent(arm: Arm, settings: StudySettings, spec: EnvSpec, seed: int) -> RLPD:
    shared: dict[str, Any] = {"num_critics": 4, "utd": float(settings.utd), "actor_period": settings.utd}
    if not arm.aware:
        return RLPD(RLPDConfig(**shared), spec, seed=seed)
    if settings.form == "recovery":
        return RecoveryRLPD(RecoveryConfig(**shared), spec, seed=seed)
    config = LagrangianConfig(
        **shared, cost_limit=settings.energy_limit_j, initial_multiplier=INITIAL_MULTIPLIER
    )
    return LagrangianRLPD(config, spec, seed=seed)
