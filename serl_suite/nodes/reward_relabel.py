"""A run's episodes judged again by a classifier, as a new set of episodes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from serl_suite.data.episodes import Episode, read_episode, write_episode
from serl_suite.rewards.classifier import RewardModel
from serl_suite.rewards.frames import episode_files
from serl_suite.rewards.pictures import stale_steps
from serl_suite.rewards.success import SuccessReward
from serl_suite.wire.messages import Step

__all__ = ["Relabelled", "relabel", "relabelled"]


class Relabelled(NamedTuple):
    """What became of an episode."""

    path: Path
    """Of the new file."""
    before: bool
    """Whether it was a success."""
    after: bool
    """Whether the classifier declared one."""
    cut: int
    """Steps after that, which the new file lacks."""


def relabel(paths: Sequence[Path], model: RewardModel, folder: Path) -> Iterator[Relabelled]:
    """Writes every episode into the folder, in the order of their paths.

    Raises:
        BadClassifier: There is no episode, or one has other cameras than the classifier.
        BadPicture: A black picture, in a file that is named.
        CorruptEpisode: A file is damaged.
        DiskFull: What was written until then is whole.
    """
    for number, file in enumerate(episode_files(paths)):
        episode = read_episode(file)
        new = relabelled(file, episode, model)
        path = folder / f"{number:06d}.parquet"
        write_episode(path, new)
        yield Relabelled(path, episode.success, new.success, len(episode) - len(new))


def relabelled(file: Path, episode: Episode, model: RewardModel) -> Episode:
    """The episode as the classifier would have judged it: reward 1 and the end at its first success, no reward else.

    An episode that ended with a success that the classifier does not see ends as cut off by time, so that its value
    goes on; its last frame counts as if it had stayed, for as many frames as the classifier asks for. One that ended
    with none ends as it did. A step on which a camera had stopped is no success, and begins the row of frames anew.
    """
    judge = SuccessReward(model, episode.spec)
    stale = stale_steps(file, episode, model.card.cameras)
    steps: list[Step] = []
    for place, step in enumerate(episode.steps):
        was_success = step.terminated and (step.reward > 0 if step.success is None else step.success)
        looks = (
            model.card.config.hold if was_success else 1
        )  # one that ended with a success would have stayed there
        if place in stale:
            judge.reset()
            looks = 0
        verdicts = [judge.judge(step.observation).success for _ in range(looks)]
        success = any(verdicts) and step.index > 0
        undone = was_success and not success
        steps.append(
            msgspec.structs.replace(
                step, success=success, reward=float(success), terminated=success or (step.terminated and not undone),
                truncated=not success and (step.truncated or undone),
            )
        )  # fmt: skip
        if success:
            break
    received = None if episode.received is None else episode.received[: len(steps)]
    return msgspec.structs.replace(episode, steps=steps, received=received)
