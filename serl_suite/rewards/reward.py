"""What judges success in place of the environment, by name; without torch until one is made that needs it."""

from pathlib import Path
from typing import NamedTuple, Protocol

from serl_suite.rewards.config import BadClassifier
from serl_suite.wire.messages import Observation
from serl_suite.wire.spaces import EnvSpec

__all__ = ["Reward", "Verdict", "make_reward"]


class Verdict(NamedTuple):
    """On one observation."""

    success: bool
    """The task is done: reward 1, and the episode terminates."""
    probability: float
    """Of a success, from this frame alone."""
    failure: bool = False
    """The attempt is lost: reward 0, and the episode terminates. Only a person says so."""


class Reward(Protocol):
    """Judges an episode's observations, one after the other."""

    def reset(self) -> None:
        """An episode begins; its first observation is judged as well."""

    def judge(self, observation: Observation, truth: bool | None = None) -> Verdict:
        """The verdict on the next observation.

        Args:
            observation: As the environment gave it.
            truth: Whether that is a success, where an environment or a person tells: it decides nothing, and what
                differs is kept.
        """

    def close(self) -> None:
        """Writes what is still to be written, and lets go of what it holds."""


def make_reward(name: str, spec: EnvSpec, disagreements: Path | None = None) -> Reward:
    """The reward that a command line names.

    Args:
        name: `classifier:MODEL`, a file of `serl reward train`; `key`, a person at this terminal; or `key:DEVICE`, a
            person at another one, such as /dev/pts/3.
        spec: Of the environment whose observations will be judged.
        disagreements: Folder for frames on which a classifier and the truth differ.

    Raises:
        BadClassifier: There is no such reward or file, or it was trained on other cameras.
        NoTerminal: Nobody can press a key.
    """
    kind, _, argument = name.partition(":")
    if kind == "classifier" and argument:
        from serl_suite.rewards.success import SuccessReward

        return SuccessReward.load(Path(argument), spec, disagreements)
    if kind == "key":
        from serl_suite.rewards.keys import KeyReward

        return KeyReward(argument)
    raise BadClassifier(f"no reward is called {name!r}; choose task, classifier:MODEL, or key")
