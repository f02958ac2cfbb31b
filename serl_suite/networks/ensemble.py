"""Multi-layer perceptrons whose members are evaluated as one batched computation."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from serl_suite.networks.fused import linear_norm_relu

__all__ = ["EnsembleMLP"]


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
            return _mlp(self._layers, x)
        return _mlp([[p.index_select(0, members) for p in layer] for layer in self._layers], x)

    def frozen(self, x: Tensor) -> Tensor:
        """As `forward`, with the parameters held constant: only the input receives a gradient."""
        return _mlp([[p.detach() for p in layer] for layer in self._layers], x)


def _mlp(layers: list[list[Tensor]], x: Tensor) -> Tensor:
    """Applies (weight, bias[, gain, shift]) of each layer. Shape: (batch, input) -> (members, batch, output)"""
    y = x.expand(len(layers[0][0]), *x.shape)
    for weight, bias, *norm in layers[:-1]:
        y = linear_norm_relu(y, weight, bias, *norm) if norm else torch.relu(torch.baddbmm(bias, y, weight))
    weight, bias = layers[-1]
    if weight.shape[-1] == 1:  # a product with one column costs less as a sum, and so do its gradients
        return (y * weight.transpose(1, 2)).sum(-1, keepdim=True) + bias
    return torch.baddbmm(bias, y, weight)


def _linear(
    members: int, inputs: int, outputs: int, gain: float, generator: torch.Generator
) -> dict[str, Tensor]:
    bound = gain * (6.0 / (inputs + outputs)) ** 0.5
    weight = torch.empty(members, inputs, outputs).uniform_(-bound, bound, generator=generator)
    return {"weight": weight, "bias": torch.zeros(members, 1, outputs)}
