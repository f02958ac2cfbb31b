"""Deterministic evaluation of a policy, and the interval that its success rate deserves."""

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from serl_suite.agents.policy import Policy
from serl_suite.nodes.environment import Environment
from serl_suite.wire.messages import EpisodeOutcome, Observation

__all__ = ["EvaluationResult", "evaluate", "read_result", "wilson_interval"]

log = logging.getLogger(__name__)

SEED_OFFSET = 1_000_000
LAST_EVALUATION = 2**30
"""Added to the seed of a run's last evaluation: its episodes are neither demonstrated nor trained nor attempted on,
all of which are seeded below 2^31 or with the run's steps."""


class EvaluationResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the last policy of a run achieved, and what it took."""

    task: str
    seed: int
    policy_version: int
    rate_hz: float
    knows_success: bool
    """Whether the environment tells success; without it only returns are meaningful."""
    episodes: list[EpisodeOutcome]
    false_positives: int | None = None
    """Where a classifier judged: episodes that it ended as a success and the environment saw none."""
    demo_lengths: list[int] = []
    """Steps of each demonstration, to compare cycle times."""

    @property
    def successes(self) -> int:
        return sum(episode.success for episode in self.episodes)

    @property
    def success_rate(self) -> float:
        return self.successes / max(len(self.episodes), 1)

    @property
    def cycle_time_s(self) -> float | None:
        """Mean robot time of a successful episode; None without one."""
        lengths = [episode.length for episode in self.episodes if episode.success]
        return sum(lengths) / len(lengths) / self.rate_hz if lengths else None

    @property
    def demo_cycle_time_s(self) -> float | None:
        return sum(self.demo_lengths) / len(self.demo_lengths) / self.rate_hz if self.demo_lengths else None


def read_result(path: Path) -> EvaluationResult:
    """Reads an evaluation.json."""
    return msgspec.json.decode(path.read_bytes(), type=EvaluationResult)


def evaluate(
    environment: Environment,
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    on_observation: Callable[[int, Observation], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[EpisodeOutcome]:
    """Runs fresh episodes with the deterministic policy and yields each one's outcome as it ends.

    Args:
        environment: Where to run; each episode is seeded, so the same seed gives the same outcomes. One in which a
            camera fails begins again.
        policy: Acts without exploration.
        episodes: How many.
        seed: Of the first episode; the others follow.
        on_observation: Called with the episode's number after the reset and every step (to render a video).
        should_stop: Ends the evaluation early, between two steps.
    """
    number = 0
    while number < episodes:
        observation = environment.reset(seed=SEED_OFFSET + 10_000 * seed + number)
        length, episode_return, done, success = 0, 0.0, False, None
        while not done:
            if should_stop():
                return
            if on_observation is not None:
                on_observation(number, observation)
            action = environment.scale.to_env(policy.act(observation, explore=False))
            observation, reward, terminated, truncated, success = environment.step(action)
            length, episode_return, done = length + 1, episode_return + reward, terminated or truncated
        if on_observation is not None:
            on_observation(number, observation)
        if environment.is_stale:
            log.warning("a camera has failed: episode %d begins again", number)
            continue
        yield EpisodeOutcome(success=bool(success), episode_return=episode_return, length=length)
        number += 1


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Returns the Wilson score interval of a success rate (Wilson 1927, JASA 22:209), 95 % by default."""
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
