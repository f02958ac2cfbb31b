"""Multi-layer perceptrons whose members are evaluated as one batched computation."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from serl_suite.networks.fused import EPS, fused_mlp

__all__ = ["EnsembleMLP", "plain_mlp"]


class EnsembleMLP(nn.Module):
    """`members` independent MLPs on the same input: Linear, LayerNorm, ReLU for each hidden layer, then Linear.

    Every layer is one batched product. LayerNorm bounds the critics' values where there is no data
    (RLPD, arXiv 2302.02948). Weights are Glorot-uniform, biases zero.

    Args:
        generator: Draws the weights; on the CPU, so that a seed means the same network on every device.
        output_gain: Scale of the last layer's weights.
    """

    def __init__(
        self,
        members: int,
        input_dim: int,
        hidden: Sequence[int],
        output_dim: int,
        *,
        generator: torch.Generator,
        layer_norm: bool = True,
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        layers = []
        for inputs, outputs in pairwise([input_dim, *hidden]):
            layer = _linear(members, inputs, outputs, 1.0, generator)
            if layer_norm:
                layer |= {"gain": torch.ones(members, 1, outputs), "shift": torch.zeros(members, 1, outputs)}
            layers.append(nn.ParameterDict(layer))
        layers.append(nn.ParameterDict(_linear(members, hidden[-1], output_dim, output_gain, generator)))
        self.layers = nn.ModuleList(layers)
        order = ("weight", "bias", "gain", "shift")
        self._layers = [[layer[k] for k in order if k in layer] for layer in layers]  # without the look-ups

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Evaluates all members, or those listed.

        Args:
            x: Shape: (batch, input_dim)
            members: Distinct indices, int64. Shape: (k,)

        Returns: Shape: (members or k, batch, output_dim)
        """
        if members is None:
            return _mlp(x, self._layers)
        return _mlp(x, [[p.index_select(0, members) for p in layer] for layer in self._layers])

    def frozen(self, x: Tensor) -> Tensor:
        """As `forward`, with the parameters held constant: only the input receives a gradient."""
        return _mlp(x, [[p.detach() for p in layer] for layer in self._layers])


def _mlp(x: Tensor, layers: list[list[Tensor]]) -> Tensor:
    on_host = x.device.type == "cpu" and len(layers[0]) == 4
    return fused_mlp(x, layers) if on_host else plain_mlp(x, layers)


def plain_mlp(x: Tensor, layers: list[list[Tensor]]) -> Tensor:
    """What `fused_mlp` computes, in torch's operations; for devices, and for networks without LayerNorm.

    Args:
        x: Shape: (batch, inputs)
        layers: As `fused_mlp` takes them, gain and shift left out where there is no LayerNorm.

    Returns: Shape: (members, batch, outputs)
    """
    y = x.expand(len(layers[0][0]), *x.shape)
    for weight, bias, *norm in layers[:-1]:
        y = torch.bmm(y, weight) + bias
        if norm:
            gain, shift = norm
            y = torch.addcmul(shift, layer_norm(y, y.shape[-1:], eps=EPS), gain)
        y = torch.relu(y)
    weight, bias = layers[-1]
    return torch.bmm(y, weight) + bias


def _linear(
    members: int, inputs: int, outputs: int, gain: float, generator: torch.Generator
) -> dict[str, Tensor]:
    bound = gain * (6.0 / (inputs + outputs)) ** 0.5
    weight = torch.empty(members, inputs, outputs).uniform_(-bound, bound, generator=generator)
    return {"weight": weight, "bias": torch.zeros(members, 1, outputs)}
