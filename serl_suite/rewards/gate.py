"""A condition on the state beside the pictures: a box that the success must lie in."""

import re
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from serl_suite.rewards.config import BadClassifier
from serl_suite.wire.spaces import EnvSpec

__all__ = ["Gate", "Side", "parse_gate"]

SIDE = re.compile(r"\s*(?P<key>[\w/]+)\[(?P<index>\d+)\]\s*(?P<sense>[<>])\s*(?P<limit>[-+\d.eE]+)\s*")


class Side(msgspec.Struct, frozen=True):
    """One side of the box."""

    key: str
    """Of the observation."""
    index: int
    """Into its array, raveled."""
    above: bool
    """Whether the value must lie above the limit, or below."""
    limit: float

    def __str__(self) -> str:
        return f"{self.key}[{self.index}] {'>' if self.above else '<'} {self.limit:g}"


class Gate(msgspec.Struct, frozen=True):
    """Holds where every side does; without sides, always."""

    sides: tuple[Side, ...] = ()

    def holds(self, observation: Mapping[str, npt.NDArray[np.generic]]) -> bool:
        """Whether the state of an observation lies in the box."""
        for side in self.sides:
            value = float(observation[side.key].flat[side.index])
            if not (value > side.limit if side.above else value < side.limit):
                return False
        return True

    def holds_all(self, states: Mapping[str, npt.NDArray[np.float32]], count: int) -> npt.NDArray[np.bool_]:
        """The same for arrays of `count` states, (count, ...) each. Shape: (count,)"""
        held = np.ones(count, np.bool_)
        for side in self.sides:
            values = states[side.key].reshape(count, -1)[:, side.index]
            held &= values > side.limit if side.above else values < side.limit
        return held

    def check(self, spec: EnvSpec) -> None:
        """Raises: BadClassifier, where the observation has no such number."""
        for side in self.sides:
            array = spec.observation.get(side.key)
            if array is None or array.is_image or side.index >= array.size:
                numbers = [f"{key}[0..{spec.observation[key].size - 1}]" for key in spec.state_keys]
                raise BadClassifier(
                    f"the gate asks for {side}, which {spec.task} does not observe; it observes "
                    f"{', '.join(numbers) or 'pictures only'}"
                )


def parse_gate(text: str) -> Gate:
    """Reads `key[index] > limit, key[index] < limit`; an empty text is no gate.

    Raises:
        BadClassifier: It cannot be read.
    """
    return Gate(tuple(_side(part) for part in _parts(text)))


def _parts(text: str) -> Sequence[str]:
    return text.split(",") if text.strip() else []


def _side(text: str) -> Side:
    match = SIDE.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        return Side(match["key"], int(match["index"]), match["sense"] == ">", float(match["limit"]))
    except ValueError:
        raise BadClassifier(
            f"{text.strip()!r} is no side of a gate; write for example `tcp_pose[2] > 0.05, gripper[0] < 0.6`"
        ) from None
