"""Successes and failures as a classifier needs them, from a task's scripted expert.

Each start is tried twice: once well, with some frames after the success, and once badly, by what the good try did and
then something else. The bad tries are near misses on purpose; a step's `success` says what truly was.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from serl_suite.data.episodes import Episode, write_episode
from serl_suite.nodes.environment import Environment, EnvironmentFailure
from serl_suite.wire.messages import Step

__all__ = ["KINDS", "record_attempts"]

KINDS = ("stopped short", "beside", "undone", "wandering")
"""Of failures, in turn. Stopped short: as the success, ended up to `SHORT` steps before it. Beside: as the success, but
pushed aside from the first steps on. Undone: a success, then anything at all. Wandering: anything at all."""
SHORT = 4
LINGER = 8
"""Steps after a success, and at the end of a failure."""
ASIDE_STEPS, ASIDE = 6, (0.1, 0.8)
"""For how long a motion is pushed aside, and by which share of a full action."""
WANDER, PERSISTENCE = 0.6, 0.8
"""Standard deviation of random actions, and their correlation from one step to the next."""
MAX_TRIES = 5
SEEDS = 50_000
"""Of starts, one recording's seed to the next."""
Action = npt.NDArray[np.float32]
Actions = list[Action]


def record_attempts(
    environment: Environment, folder: Path, *, starts: int, noise: float, seed: int
) -> Iterator[tuple[Episode, str]]:
    """Records a success and a failure from each start.

    Args:
        environment: With cameras and a scripted expert.
        folder: Receives one parquet file an episode.
        starts: How many.
        noise: Standard deviation of the expert's action noise, in action units.
        seed: Of environment, noise and failures.

    Yields:
        Each episode as it is written, and its kind.

    Raises:
        EnvironmentFailure: There is no camera or expert, the expert keeps failing, or nothing tells success.
    """
    if not environment.spec.image_keys:
        raise EnvironmentFailure(
            f"{environment.spec.task} observes no pictures; name its cameras by --cameras"
        )
    expert = environment.make_expert(noise, seed)
    rng = np.random.default_rng(seed)
    session, attempt = f"attempts-{seed}-{noise:g}", 0  # the same episodes, however many of them
    for start in range(starts):
        while True:
            if attempt >= MAX_TRIES * starts:
                raise EnvironmentFailure(
                    f"the expert succeeded in {start} of {attempt} tries at noise {noise}; lower the noise"
                )
            reset_seed = SEEDS * (seed + 1) + attempt
            attempt += 1
            take = _Take(environment, reset_seed)
            expert.reset()
            while not take.over and not take.succeeded:
                take.step(expert.act(take.observation))
            if take.succeeded:
                break
        good, at = take.actions.copy(), len(take.actions)
        carry_on = int(rng.integers(1, LINGER + 1))
        for step in range(LINGER):
            if take.over:
                break
            take.step(expert.act(take.observation) if step < carry_on else _idle(rng, environment))
        yield _written(take, folder, session, 2 * start), "success"
        kind = KINDS[start % len(KINDS)]
        take = _Take(environment, reset_seed)
        for action in _bad(kind, good[:at], rng, environment):
            if take.over:
                break
            take.step(action)
        yield _written(take, folder, session, 2 * start + 1), kind


class _Take:
    """An episode that goes on after a success, as long as the environment's time limit allows."""

    def __init__(self, environment: Environment, seed: int) -> None:
        self._environment, self.seed, self.spec = environment, seed, environment.spec
        self.observation = environment.reset(seed=seed)
        self.steps = [
            Step(seq=0, episode=0, index=0, observation=self.observation, success=False, source="scripted")
        ]
        self.actions: Actions = []
        self.over = self.succeeded = False

    def step(self, action: Action) -> None:
        """Raises: EnvironmentFailure, where the environment does not tell success."""
        self.observation, _, terminated, truncated, success = self._environment.step(action)
        if success is None:
            raise EnvironmentFailure(
                f"{self.spec.task} does not tell success (info['is_success']); nothing labels its frames"
            )
        self.actions.append(action)
        self.over, self.succeeded = self.over or truncated or (terminated and not success), success
        index = len(self.steps)
        self.steps.append(
            Step(
                seq=index, episode=0, index=index, observation=self.observation, action=action, success=success,
                source="scripted", time_s=index / self.spec.rate_hz,
            )
        )  # fmt: skip


def _written(take: _Take, folder: Path, session_id: str, number: int) -> Episode:
    """Ends the take where it is, and writes it."""
    last = take.steps[-1]
    done = bool(last.success)
    steps = [
        *take.steps[:-1],
        msgspec.structs.replace(last, reward=float(done), terminated=done, truncated=not done),
    ]
    steps = [msgspec.structs.replace(step, episode=number) for step in steps]
    episode = Episode(session_id=session_id, number=number, spec=take.spec, steps=steps, seed=take.seed)
    write_episode(folder / f"{number:06d}.parquet", episode)
    return episode


def _bad(kind: str, good: Actions, rng: np.random.Generator, environment: Environment) -> Iterator[Action]:
    """Actions of a failure, given those that led to the success."""
    if kind == "stopped short":
        yield from good[: len(good) - int(rng.integers(1, SHORT + 1))]
        yield from (_idle(rng, environment) for _ in range(LINGER))
    elif kind == "beside":
        unit = [environment.scale.to_unit(action) for action in good]
        aside = rng.normal(size=unit[0].shape)
        aside *= rng.uniform(*ASIDE) / np.linalg.norm(aside)
        for k, action in enumerate(unit):
            yield environment.scale.to_env((action + aside * (k < ASIDE_STEPS)).astype(np.float32))
        yield from (_idle(rng, environment) for _ in range(LINGER))
    elif kind == "undone":
        yield from good
        yield from _wander(rng, environment, 2 * LINGER)
    else:
        yield from _wander(rng, environment, len(good))


def _idle(rng: np.random.Generator, environment: Environment) -> Action:
    """About no motion."""
    return environment.scale.to_env((0.1 * rng.normal(size=environment.spec.action_dim)).astype(np.float32))


def _wander(rng: np.random.Generator, environment: Environment, steps: int) -> Iterator[Action]:
    """A random walk that keeps a direction for some steps, as a policy does that has learnt nothing."""
    drift = WANDER * rng.normal(size=environment.spec.action_dim)
    for _ in range(steps):
        drift = PERSISTENCE * drift + np.sqrt(1 - PERSISTENCE**2) * WANDER * rng.normal(size=drift.shape)
        yield environment.scale.to_env(drift.astype(np.float32))
