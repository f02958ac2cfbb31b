"""The policy: a Gaussian squashed by tanh into [-1, 1]."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from serl_suite.networks.ensemble import EnsembleMLP

__all__ = ["TanhGaussian", "log_density"]

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0
HEAD_GAIN = 0.01  # the first actions spread evenly instead of following a random network
LOG_2 = math.log(2.0)
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class TanhGaussian(nn.Module):
    """`a = tanh(mean(s) + std(s) * noise)` of an encoded observation s."""

    def __init__(
        self,
        width: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        generator: torch.Generator,
        layer_norm: bool,
    ) -> None:
        super().__init__()
        self.net = EnsembleMLP(
            1,
            width,
            hidden,
            2 * action_dim,
            generator=generator,
            layer_norm=layer_norm,
            output_gain=HEAD_GAIN,
        )

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before tanh, of an encoded observation.

        Shape: (batch, width) -> 2 x (batch, action_dim)
        """
        mean, log_std = self.net(latent)[0].chunk(2, dim=-1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def draw(self, latent: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A reparametrised draw before tanh from standard normal noise: raw, log_std; see `log_density`.

        Shape: (batch, width), (batch, action_dim) -> 2 x (batch, action_dim)
        """
        mean, log_std = self(latent)
        return torch.addcmul(mean, log_std.exp(), noise), log_std

    @torch.no_grad()
    def act(self, latent: Tensor, generator: torch.Generator | None) -> Tensor:
        """The action for an encoded observation: the mode, or a draw where a generator is given.

        Shape: (batch, width) -> (batch, action_dim)
        """
        mean, log_std = self(latent)
        if generator is not None:
            mean += log_std.exp() * torch.randn(mean.shape, generator=generator, device=mean.device)
        return torch.tanh(mean)


def log_density(raw: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """log p(tanh(raw)) for raw = mean + std * noise, summed over the action's dimensions.

    `log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2 x))` keeps it finite where tanh saturates.
    """
    gaussian = noise.square().mul(-0.5) - log_std - HALF_LOG_2PI
    return (gaussian - 2.0 * (LOG_2 - raw - softplus(-2.0 * raw))).sum(-1)
