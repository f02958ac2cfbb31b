"""What the learner knows of an algorithm."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from serl_suite.agents.errors import BadAgent
from serl_suite.data.columns import Features
from serl_suite.data.replay import Batch
from serl_suite.wire.spaces import Observation

__all__ = ["Agent", "BadAgent"]


class Agent(Protocol):
    """An algorithm that turns batches into a better policy."""

    def fit_normaliser(self, states: NDArray[np.float32]) -> None:
        """Sets the state statistics, once, before the first update. Shape: (n, state_dim)"""

    def kept_features(self) -> Features | None:
        """What a replay is to keep in the place of images; None: the images."""

    def act(self, observation: Observation, explore: bool) -> NDArray[np.float32]:
        """An action in [-1, 1]: the policy's mode, or a draw where `explore`. Shape: (action_dim,)"""

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One gradient step. Metrics are scalars left on the device: reading one waits for it."""

    def policy_state(self) -> dict[str, NDArray[np.float32]]:
        """A copy of what an actor needs, no more."""

    def policy_tensors(self) -> dict[str, torch.Tensor]:
        """The same as it is trained, for a `Snapshot`."""

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Everything that the next update depends on, for a `Snapshot`."""

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restores a copy of `state_tensors`, after which updates go on exactly as they would have.

        Raises:
            BadAgent: It is of an agent with other settings; nothing was changed.
        """
