"""Actions as the environment takes them and as an agent does: each bound at -1 or 1."""

import numpy as np
from numpy.typing import NDArray

from serl_suite.wire.spaces import ArraySpec

__all__ = ["ActionScale"]


class ActionScale:
    """The affine map between a bounded action space and [-1, 1]."""

    def __init__(self, spec: ArraySpec) -> None:
        self._low = spec.low_array.ravel().astype(np.float32)
        self._high = spec.high_array.ravel().astype(np.float32)
        self._centre, self._half = (self._low + self._high) / 2, (self._high - self._low) / 2
        self._identity = bool(np.all(self._low == -1.0) and np.all(self._high == 1.0))

    def to_env(self, unit: NDArray[np.float32]) -> NDArray[np.float32]:
        """From [-1, 1] to the space's bounds, clipped to them. Shape: (..., action_dim)"""
        scaled = unit if self._identity else self._centre + self._half * unit
        return np.clip(scaled, self._low, self._high).astype(np.float32, copy=False)

    def to_unit(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """From the space's bounds to [-1, 1], clipped. Shape: (..., action_dim)"""
        unit = action if self._identity else (action - self._centre) / self._half
        return np.maximum(np.minimum(unit, 1.0), -1.0).astype(np.float32, copy=False)
