"""Weights by request: one request at a time, so that an actor that is slow to take them never has a queue of them."""

import msgspec
import numpy as np

from serl_suite.wire.messages import Weights, WeightsRequest, WireError

__all__ = ["Subscription"]


class Subscription:
    """Which weights to ask for, and whether those that come are the ones.

    Args:
        in_order: every kept version in turn, instead of the newest.
        half: as float16 on the wire.
    """

    def __init__(self, *, in_order: bool, half: bool) -> None:
        self.in_order = in_order
        self._half = half
        self._version = -1
        self._asked = False

    def request(self) -> WeightsRequest | None:
        """What to ask for; None while an answer is due."""
        if self._asked:
            return None
        return WeightsRequest(have_version=self._version, in_order=self.in_order, half=self._half)

    def asked(self) -> None:
        """The request was sent."""
        self._asked = True

    def ask_anew(self) -> None:
        """The learner may not have the request any more."""
        self._asked = False

    def accept(self, weights: Weights) -> Weights:
        """A copy of the answer, in float32.

        Raises: WireError, where it is no answer to the request.
        """
        if not self._asked:
            raise WireError("weights that were not asked for")
        self._asked = False
        if weights.version <= self._version:
            raise WireError(f"weights of version {weights.version} after {self._version}")
        self._version = weights.version
        arrays = {
            key: array.astype(np.float32) if array.dtype == np.float16 else array.copy()
            for key, array in weights.arrays.items()
        }
        return msgspec.structs.replace(weights, arrays=arrays)
