"""Multi-layer perceptrons whose members are evaluated as one batched computation."""

from collections.abc import Sequence

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
        self.members, self.layer_norm = members, layer_norm
        widths = [input_dim, *hidden, output_dim]
        gains = [1.0] * len(hidden) + [output_gain]
        self.weights = nn.ParameterList(
            _glorot(members, i, o, gain, generator)
            for i, o, gain in zip(widths, widths[1:], gains, strict=False)
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, o) for o in widths[1:])
        normed = hidden if layer_norm else []
        self.gains = nn.ParameterList(torch.ones(members, 1, o) for o in normed)
        self.shifts = nn.ParameterList(torch.zeros(members, 1, o) for o in normed)

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
    return torch.baddbmm(bias, y, weight)


def _glorot(members: int, inputs: int, outputs: int, gain: float, generator: torch.Generator) -> Tensor:
    bound = gain * (6.0 / (inputs + outputs)) ** 0.5
    return torch.empty(members, inputs, outputs).uniform_(-bound, bound, generator=generator)
