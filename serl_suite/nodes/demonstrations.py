"""Demonstrations from a task's scripted expert, recorded as a teleoperator's would be."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from serl_suite.data.episodes import Episode, read_dataset, write_episode
from serl_suite.nodes.environment import Environment, EnvironmentFailure, Expert
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import EnvSpec

__all__ = ["import_demonstrations", "record_scripted"]

MAX_TRIES = 5
"""Tries for each demonstration wanted; a worse expert is no demonstrator."""


def record_scripted(
    environment: Environment, folder: Path, *, episodes: int, noise: float, seed: int
) -> Iterator[tuple[Episode, bool]]:
    """Records until there are `episodes` successful demonstrations; failed tries are not kept.

    Args:
        environment: Must have a scripted expert.
        folder: Receives one parquet file an episode.
        episodes: Demonstrations to keep.
        noise: Standard deviation of the expert's action noise, in action units.
        seed: Of environment and noise.

    Yields:
        Each episode, kept or not, and whether it was kept.

    Raises:
        EnvironmentFailure: The environment has no expert, or one that keeps failing.
    """
    expert = environment.make_expert(noise, seed)
    session_id = f"scripted-{seed}"
    kept = attempt = 0
    while kept < episodes:
        if attempt >= MAX_TRIES * episodes:
            raise EnvironmentFailure(
                f"the expert succeeded in {kept} of {attempt} tries at noise {noise}; lower the noise"
            )
        episode = _record_one(
            environment, expert, session_id=session_id, number=kept, seed=100_000 * (seed + 1) + attempt
        )
        attempt += 1
        success = bool(episode.steps[-1].success)
        if success:
            write_episode(folder / f"{kept:06d}.parquet", episode)
            kept += 1
        yield episode, success


def import_demonstrations(source: str, folder: Path, spec: EnvSpec | None = None) -> int:
    """Copies demonstrations into a run.

    Args:
        source: An episode file, a folder of them, or a run folder, whose demonstrations are taken.
        folder: The new run's demos folder, empty; has all of them in the end, or none.
        spec: Spaces that they must have, where they are known.

    Returns:
        How many there are.

    Raises:
        CorruptEpisode: There is no episode, or a file cannot be read.
        SpecMismatch: The spaces are others.
    """
    path = Path(source)
    episodes = read_dataset(path / "demos" if (path / "run.json").exists() else path, spec)
    recording = fresh_recording(folder)
    for number, episode in enumerate(episodes):
        write_episode(recording / f"{number:06d}.parquet", episode)
    recording.rename(folder)
    return len(episodes)


def fresh_recording(folder: Path) -> Path:
    """An empty folder beside it, to take its place once everything is in there; what was left there is no use."""
    recording = folder.with_name(f"{folder.name}.recording")
    shutil.rmtree(recording, ignore_errors=True)
    recording.mkdir()
    return recording


def _record_one(
    environment: Environment, expert: Expert, *, session_id: str, number: int, seed: int
) -> Episode:
    spec = environment.spec
    observation = environment.reset(seed=seed)
    expert.reset()
    steps = [Step(seq=0, episode=number, index=0, observation=observation, source="scripted")]
    while not steps[-1].ends_episode:
        action = expert.act(observation)
        observation, reward, terminated, truncated, success = environment.step(action)
        if environment.is_stale:
            raise EnvironmentFailure(
                "a camera has failed; mend it (serl camera view shows what they see), and record again"
            )
        index = len(steps)
        steps.append(
            Step(
                seq=index,
                episode=number,
                index=index,
                observation=observation,
                action=action,
                reward=reward,
                terminated=terminated,
                truncated=truncated,
                success=success,
                source="scripted",
                time_s=index / spec.rate_hz,
            )
        )
    return Episode(session_id=session_id, number=number, spec=spec, steps=steps)
