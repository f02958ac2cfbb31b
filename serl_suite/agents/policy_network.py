"""What an actor acts with: the encoder of observations and the policy on top of it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serl_suite.agents.errors import BadAgent
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.networks.encoder import Encoder, PixelEncoder, StateEncoder
from serl_suite.networks.gaussian import TanhGaussian
from serl_suite.wire.spaces import EnvSpec, Observation

__all__ = ["PolicyNetwork", "make_actor", "make_encoder", "require_states"]

FROZEN = "encoder.backbone."


class PolicyNetwork(nn.Module):
    """Encoder and policy.

    Args:
        config: The agent's.
        spec: Of the environment.
        seed: Of the weights.

    Raises:
        BadAgent: The spec's images are not square, or not all of one size.
        BadEncoder: There is no such backbone, or its weights do not fit.
    """

    def __init__(self, config: RLPDConfig, spec: EnvSpec, seed: int) -> None:
        super().__init__()
        self._spec = spec
        self.encoder = make_encoder(config, spec, seed + 5)
        self.actor = make_actor(config, self.encoder.width, spec, seed)

    @torch.no_grad()
    def act(self, observation: Observation, generator: torch.Generator | None) -> NDArray[np.float32]:
        """The mode, or a draw where a generator is given. Shape: (action_dim,)"""
        device = self.encoder.normaliser.mean.device
        pictures = {key: torch.from_numpy(observation[key])[None].to(device) for key in self.encoder.cameras}
        state = torch.from_numpy(self._spec.flatten(observation))[None].to(device)
        latent = self.encoder(self.encoder.see(pictures), state)
        return self.actor.act(latent, generator)[0].cpu().numpy()

    def trained_state(self) -> dict[str, Tensor]:
        """Everything but a frozen backbone, which both sides have."""
        frozen = isinstance(self.encoder, PixelEncoder) and self.encoder.frozen
        state = self.state_dict()
        return {name: x for name, x in state.items() if not (frozen and name.startswith(FROZEN))}

    def load_trained(self, state: dict[str, Tensor]) -> None:
        """Restores `trained_state`."""
        self.load_state_dict(state, strict=False)


def make_actor(config: RLPDConfig, width: int, spec: EnvSpec, seed: int) -> TanhGaussian:
    """A policy over encoded observations of that width, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return TanhGaussian(
        width, spec.action_dim, config.hidden, generator=generator, layer_norm=config.layer_norm
    )


def make_encoder(config: RLPDConfig, spec: EnvSpec, seed: int) -> Encoder:
    """The encoder of the spec's observations, on the CPU."""
    if not spec.image_keys:
        return StateEncoder(spec.state_dim)
    shapes = {spec.observation[key].shape for key in spec.image_keys}
    height, width, _ = min(shapes)
    if len(shapes) > 1 or height != width:
        raise BadAgent(
            f"{spec.task} observes images of {sorted(shapes)}; one square size is needed, so crop and resize them alike"
        )
    generator = torch.Generator().manual_seed(seed)
    return PixelEncoder(spec.image_keys, height, spec.state_dim, config.encoder, generator)


def require_states(spec: EnvSpec) -> None:
    """Raises: BadAgent, where there are images."""
    if spec.image_keys:
        raise BadAgent(
            f"this agent reads states, and {spec.task} also observes images {list(spec.image_keys)}; "
            "make the environment without cameras"
        )
