"""The actor's half of an agent: the policy network and nothing else."""

import numpy as np
import torch
from numpy.typing import NDArray

from serl_suite.agents.agent import BadAgent
from serl_suite.agents.policy_network import PolicyNetwork
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.wire.spaces import EnvSpec, Observation

__all__ = ["Policy"]


class Policy:
    """Acts with the weights that the learner published.

    Args:
        config: The agent's.
        spec: Of the environment.
        seed: Of the exploration noise and of the weights until `load`.
    """

    def __init__(self, config: RLPDConfig, spec: EnvSpec, *, seed: int) -> None:
        self.spec = spec
        self._network = PolicyNetwork(config, spec, seed).requires_grad_(False)
        self._generator = torch.Generator().manual_seed(seed)

    def load(self, arrays: dict[str, NDArray[np.float32]]) -> None:
        """Takes what `Agent.policy_state` gave (float16 is widened).

        Raises:
            BadAgent: arrays of another agent or other sizes.
        """
        own = self._network.trained_state()
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
        if shapes != expected:
            odd = sorted(k for k in shapes.keys() | expected.keys() if shapes.get(k) != expected.get(k))
            raise BadAgent(
                f"the weights do not fit this policy ({', '.join(odd[:3])} differ); "
                "start actor and learner from the same version, task and agent settings"
            )
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name], np.float32)))

    def act(self, observation: Observation, explore: bool) -> NDArray[np.float32]:
        """An action in [-1, 1]: the policy's mode, or a draw where `explore`. Shape: (action_dim,)"""
        return self._network.act(observation, self._generator if explore else None)
