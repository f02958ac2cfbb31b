"""The last measure of a run: its policy on fresh episodes, and a film of the first of them."""

import logging
from collections.abc import Callable

import gymnasium
import msgspec
import numpy as np
import numpy.typing as npt

from serl_suite.agents.policy import Policy
from serl_suite.agents.registry import describe, make_policy
from serl_suite.data.checkpoint import load_checkpoint
from serl_suite.data.episodes import read_info
from serl_suite.errors import SerlError
from serl_suite.nodes.environment import Environment
from serl_suite.nodes.evaluation import LAST_EVALUATION, EvaluationResult, evaluate
from serl_suite.nodes.run_folder import RunFolder
from serl_suite.nodes.video import film_policy
from serl_suite.rig import Rig
from serl_suite.wire.messages import EpisodeOutcome, Observation

__all__ = ["FILMED_EPISODES", "CannotEvaluate", "evaluate_run"]

log = logging.getLogger(__name__)

FILMED_EPISODES = 4


class CannotEvaluate(SerlError):
    """The run has no policy, or no episode was asked for."""


class _WatchedEnvironment(Environment):
    """Remembers whether the environment ever told success."""

    knows_success = False

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, bool | None]:
        result = super().step(action)
        self.knows_success |= result[4] is not None
        return result


def evaluate_run(
    folder: RunFolder,
    *,
    episodes: int,
    seed: int,
    film: bool = True,
    rig: Rig | None = None,
    progress: Callable[[EpisodeOutcome], None] = lambda outcome: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> EvaluationResult | None:
    """Evaluates a run's policy deterministically and writes evaluation.json, then evaluation.mp4 and evaluation.gif.

    Args:
        folder: Of a run that has trained.
        episodes: How many fresh episodes; each is seeded, so the same seed gives the same outcomes.
        seed: Of the first.
        film: Whether to film the first `FILMED_EPISODES`; where nothing can be rendered, a warning says so.
        rig: To run it on; by default the run's own.
        progress: Called with each outcome as it comes.
        should_stop: Ends the evaluation early; nothing is written then.

    Returns:
        The result; None when stopped.

    Raises:
        CannotEvaluate: The run has not trained yet, or `episodes` is less than 1.
        BadCheckpoint: The policy's file is damaged.
        EnvironmentFailure: The environment cannot be made.
    """
    if episodes < 1:
        raise CannotEvaluate(f"{episodes} episodes are no evaluation; ask for at least one: --episodes 100")
    config = folder.config
    environment = _WatchedEnvironment.of(config, rig=rig)
    try:
        policy, version = _load_policy(folder, environment, seed)
        outcomes, false_positives = [], 0
        for judged in evaluate(
            environment, policy, episodes=episodes, seed=LAST_EVALUATION + seed, should_stop=should_stop
        ):
            truth = environment.truth  # decides where there is one, whoever judged
            outcome = judged if truth is None else msgspec.structs.replace(judged, success=truth)
            false_positives += judged.success and not outcome.success
            outcomes.append(outcome)
            progress(outcome)
    finally:
        environment.close()
    if len(outcomes) < episodes:
        return None
    result = EvaluationResult(
        task=config.task,
        seed=seed,
        policy_version=version,
        rate_hz=environment.spec.rate_hz,
        knows_success=environment.knows_success,
        episodes=outcomes,
        false_positives=None if config.reward == "task" else false_positives,
        demo_lengths=[read_info(path).last_index for path in sorted(folder.demos.glob("*.parquet"))],
    )
    for name in ("evaluation.mp4", "evaluation.gif"):
        (folder.path / name).unlink(missing_ok=True)
    folder.evaluation.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    if film and "rgb_array" in environment.env.metadata.get("render_modes", ()):
        _film(folder, result, rig, should_stop)
    elif film:
        log.warning("no film: %s renders no pictures", config.task)
    return result


def _film(
    folder: RunFolder, result: EvaluationResult, rig: Rig | None, should_stop: Callable[[], bool]
) -> None:
    """Films the first episodes of an evaluation again, by the same seeds; what fails here is only logged."""
    config = folder.config
    episodes = min(FILMED_EPISODES, len(result.episodes))
    try:
        environment = Environment.of(config, rig=rig, render_mode="rgb_array")
        try:
            film_policy(
                environment,
                _load_policy(folder, environment, result.seed)[0],
                episodes=episodes,
                seed=LAST_EVALUATION + result.seed,
                knows_success=result.knows_success,
                mp4=folder.path / "evaluation.mp4",
                gif=folder.path / "evaluation.gif",
                should_stop=should_stop,
            )
        finally:
            environment.close()
    except (SerlError, gymnasium.error.Error, ImportError, RuntimeError, OSError) as error:
        (folder.path / "evaluation.mp4").unlink(missing_ok=True)
        log.warning("no film: %s", error)


def _load_policy(folder: RunFolder, environment: Environment, seed: int) -> tuple[Policy, int]:
    if not folder.policy.exists():
        raise CannotEvaluate(
            f"{folder.path} has no policy yet; train it first: serl train --resume {folder.path}, or wait for its end"
        )
    tensors, meta = load_checkpoint(folder.policy)
    policy = make_policy(describe("rlpd", folder.config.agent), environment.spec, seed=seed)
    policy.load({name: tensor.numpy() for name, tensor in tensors.items()})
    return policy, int(meta["version"])
