"""From an observation to the numbers that policy and critics see.

Of pictures: a backbone's feature maps come to `embeddings` weighted sums over space a channel (spatial learned
embeddings), a linear layer, LayerNorm and tanh, for each camera; the state beside them to a linear layer, LayerNorm and
tanh. As in SERL (Luo et al. 2024, arXiv 2401.16013).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from serl_suite.networks.backbone import feature_shape, make_backbone
from serl_suite.networks.encoder_config import EncoderConfig
from serl_suite.networks.frozen_resnet import SIDE_STEP, FrozenResNet
from serl_suite.networks.normaliser import Normaliser
from serl_suite.networks.resnet import ResNet

__all__ = ["Encoder", "PixelEncoder", "StateEncoder"]

Pictures = Mapping[str, Tensor]


class StateEncoder(nn.Module):
    """The state, normalised."""

    cameras: tuple[str, ...] = ()
    frozen = True

    def __init__(self, state_dim: int) -> None:
        super().__init__()
        self.normaliser = Normaliser(state_dim)
        self.heads = StateOnly()
        self.width = state_dim

    def see(self, *moments: Pictures) -> Tensor | None:
        """There is nothing to see."""
        return None

    def forward(self, seen: Tensor | None, state: Tensor) -> Tensor:
        """Shape: (batch, state_dim) -> (batch, state_dim)"""
        normalised: Tensor = self.normaliser(state)
        return normalised

    def settle(self) -> None:
        """There is nothing to be made quicker."""

    def backbone_parameters(self) -> list[Tensor]:
        """There are none."""
        return []


class StateOnly(nn.Module):
    """Heads where there is nothing but a state."""

    def forward(self, seen: Tensor | None, state: Tensor) -> Tensor:
        """The state. Shape: (batch, state_dim) -> (batch, state_dim)"""
        return state


class PixelEncoder(nn.Module):
    """Pictures of several cameras, all of one square size, and the state beside them.

    Args:
        cameras: Their names, in the order of the embedding.
        side: Of the pictures [pixels].
        state_dim: Of the state beside them; may be 0.
        generator: Draws the weights; on the CPU.

    Raises:
        BadEncoder: There is no such backbone, or its weights do not fit.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        side: int,
        state_dim: int,
        config: EncoderConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.cameras = tuple(cameras)
        self.frozen = config.frozen
        self._side = side
        self.normaliser = Normaliser(state_dim)
        self.backbone = make_backbone(config, side, generator)
        self.feature_shape = feature_shape(self.backbone, side)
        self.heads = Heads(len(self.cameras), self.feature_shape, state_dim, config, generator)
        self._quick: FrozenResNet | None = None
        self.width = self.heads.width

    def see(self, *moments: Pictures) -> Tensor:
        """The backbone's features of every picture, each looked at once; of one batch of moments after the other.
        Features that come in the place of pictures (a replay may keep them) are taken as they are.

        Shape of each: (batch, height, width, 3), uint8 -> (cameras, all batches, features)
        """
        every = torch.cat([pictures[camera] for camera in self.cameras for pictures in moments])
        seen = self.features(every) if every.dtype == torch.uint8 else every
        return seen.view(len(self.cameras), -1, seen.shape[-1])

    def features(self, images: Tensor) -> Tensor:
        """Shape: (n, height, width, 3), uint8 -> (n, height' width' channels)"""
        maps: Tensor = self.backbone(images) if self._quick is None else self._quick(images)
        return maps.flatten(1)

    def settle(self) -> None:
        """To be called once the encoder is where it will compute: a frozen ResNet takes its quick way on a GPU, where
        that way has the pictures' side."""
        is_quick = self.frozen and self.normaliser.mean.is_cuda and self._side % SIDE_STEP == 0
        if is_quick and isinstance(self.backbone, ResNet):
            self._quick = FrozenResNet(self.backbone)

    def forward(self, seen: Tensor, state: Tensor) -> Tensor:
        """What `see` gave, and the state, as one vector. Shape: -> (batch, width)"""
        latent: Tensor = self.heads(seen, self.normaliser(state))
        return latent

    def backbone_parameters(self) -> list[Tensor]:
        """What is trained of the backbone."""
        return [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]


class Heads(nn.Module):
    """What follows the backbone.

    The embeddings and the layer after them are both linear, so they are multiplied with one another first: one product
    with the features, and no array of (batch, channels, embeddings).
    """

    def __init__(
        self,
        cameras: int,
        features: tuple[int, int, int],
        state_dim: int,
        config: EncoderConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        height, width, channels = features
        cells, embeddings, out = height * width, config.embeddings, config.width
        self.spatial = nn.Parameter(
            torch.randn(cameras, channels, cells, embeddings, generator=generator)
            * (cells * channels) ** -0.5
        )
        self.dense = nn.Parameter(
            _glorot((cameras, channels, embeddings, out), channels * embeddings, generator)
        )
        self.dense_bias, self.dense_norm = nn.Parameter(torch.zeros(cameras, 1, out)), _norm(cameras, 1, out)
        self.width = cameras * out
        self.state_dense: nn.Parameter | None = None
        if state_dim:
            small = config.proprioception_width
            self.state_dense = nn.Parameter(_glorot((state_dim, small), state_dim, generator))
            self.state_bias, self.state_norm = nn.Parameter(torch.zeros(small)), _norm(small)
            self.width += small

    def forward(self, seen: Tensor, state: Tensor) -> Tensor:
        """Shape: (cameras, batch, height width channels), (batch, state_dim) -> (batch, width)"""
        y = torch.bmm(seen, self._folded().to(seen.dtype)).float() + self.dense_bias
        parts = list(_norm_tanh(y, self.dense_norm).unbind(0))
        if self.state_dense is not None:
            parts.append(_norm_tanh(torch.addmm(self.state_bias, state, self.state_dense), self.state_norm))
        return torch.cat(parts, -1)

    def _folded(self) -> Tensor:
        """Embeddings times layer. Shape: (cameras, cells channels, out)"""
        return torch.matmul(self.spatial, self.dense).transpose(1, 2).flatten(1, 2)


Encoder = StateEncoder | PixelEncoder


def _glorot(shape: tuple[int, ...], inputs: int, generator: torch.Generator) -> Tensor:
    bound = (6.0 / (inputs + shape[-1])) ** 0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _norm(*shape: int) -> nn.Parameter:
    """Gain and shift of a LayerNorm. Shape: (2, *shape)"""
    return nn.Parameter(torch.stack([torch.ones(shape), torch.zeros(shape)]))


def _norm_tanh(x: Tensor, norm: Tensor) -> Tensor:
    return torch.tanh(layer_norm(x, x.shape[-1:]) * norm[0] + norm[1])
