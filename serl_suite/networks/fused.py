"""A whole ensemble of Linear, LayerNorm, ReLU networks as one autograd node, for the host.

With one thread, the passes that torch makes over the same numbers and its bookkeeping between them cost as much as
the products themselves. Here everything between two products is one compiled loop, and a network is one node.
"""

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["EPS", "fused_mlp"]

EPS = 1e-5
"""Added to the variance, as torch's LayerNorm does."""
Array = NDArray[np.float32]
# Sums may be reordered, which vectorises them; NaN and infinity keep their meaning, so a diverged loss still shows.
FASTMATH = {"reassoc", "contract", "nsz"}


def fused_mlp(x: Tensor, layers: list[list[Tensor]]) -> Tensor:
    """`relu(gain * layer_norm(x W + b) + shift)` for each hidden layer, then `x W + b`; all on the CPU.

    Args:
        x: The same for all members. Shape: (batch, inputs)
        layers: Weight (members, inputs, outputs), then bias, gain and shift (members, 1, outputs); the last layer
            has weight and bias only.

    Returns: Shape: (members, batch, outputs)
    """
    parameters = [parameter for layer in layers for parameter in layer]
    y: Tensor = _FusedMLP.apply(x, *parameters)  # type: ignore[no-untyped-call]
    return y


class _FusedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:  # noqa: ANN401  # torch gives it no type
        """As `fused_mlp`; keeps each hidden layer's input, normalised product and 1 / standard deviation.

        Shape: (batch, inputs) -> (members, batch, outputs)
        """
        y, kept = x.expand(len(parameters[0]), *x.shape), []
        for weight, bias, gain, shift in zip(*[iter(parameters[:-2])] * 4, strict=True):
            normed = torch.baddbmm(bias, y, weight)
            out, inverse_std = torch.empty_like(normed), normed.new_empty(normed.shape[:2])
            _forward(normed.numpy(), gain.numpy(), shift.numpy(), out.numpy(), inverse_std.numpy())
            kept += [y, normed, inverse_std]
            y = out
        ctx.save_for_backward(*kept, y, *parameters)
        ctx.hidden = len(kept) // 3
        weight, bias = parameters[-2:]
        if weight.shape[-1] == 1:  # a product with one column costs less as a sum
            return (y * weight.transpose(1, 2)).sum(-1, keepdim=True).add_(bias)
        return torch.baddbmm(bias, y, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradients of what `forward` took, None where none is needed. Shape: (members, batch, outputs) -> theirs"""
        kept, parameters = ctx.saved_tensors[: 3 * ctx.hidden + 1], ctx.saved_tensors[3 * ctx.hidden + 1 :]
        needs_x, needs_parameters = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        grads: list[Tensor | None] = [None] * len(parameters)
        weight, y = parameters[-2], kept[-1]
        if needs_parameters:
            grads[-2:] = [_weight_gradient(y, grad), grad.sum(1, keepdim=True)]
        for i in reversed(range(ctx.hidden)):
            # Gradient of this layer's activation, whose memory then holds that of its linear part.
            grad = (
                grad * weight.transpose(1, 2)
                if grad.shape[-1] == 1
                else torch.bmm(grad, weight.transpose(1, 2))
            )
            x, normed, inverse_std = kept[3 * i : 3 * i + 3]
            weight, _, gain, _ = parameters[4 * i : 4 * i + 4]
            others = torch.zeros(3, *gain.shape, dtype=gain.dtype)  # of bias, gain, shift
            _backward(
                grad.numpy(), y.numpy(), normed.numpy(), inverse_std.numpy(), gain.numpy(), others.numpy()
            )
            if needs_parameters:
                grads[4 * i : 4 * i + 4] = [torch.bmm(x.transpose(1, 2), grad), *others]
            y = x
        grad_x = torch.bmm(grad, weight.transpose(1, 2)).sum(0) if needs_x else None
        return grad_x, *grads


def _weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Of a linear layer. Shapes: (members, batch, inputs), (members, batch, outputs)"""
    if grad.shape[-1] == 1:
        return (x * grad).sum(1).unsqueeze(-1)
    return torch.bmm(x.transpose(1, 2), grad)


@numba.njit(cache=True, nogil=True, fastmath=FASTMATH)
def _forward(normed: Array, gain: Array, shift: Array, out: Array, inverse_std: Array) -> None:
    """Normalises in place and writes the activation. Shapes: (m, b, h), 2 x (m, 1, h), (m, b, h), (m, b)"""
    members, batch, width = normed.shape
    for m in range(members):
        g, s = gain[m, 0], shift[m, 0]
        for b in range(batch):
            row, y = normed[m, b], out[m, b]
            total = row[0] * 0
            for i in range(width):
                total += row[i]
            mean = total / width
            total = row[0] * 0
            for i in range(width):
                total += (row[i] - mean) * (row[i] - mean)
            scale = row.dtype.type(1.0) / np.sqrt(total / width + row.dtype.type(EPS))
            inverse_std[m, b] = scale
            for i in range(width):
                row[i] = (row[i] - mean) * scale
            for i in range(width):
                y[i] = max(g[i] * row[i] + s[i], row.dtype.type(0.0))


@numba.njit(cache=True, nogil=True, fastmath=FASTMATH)
def _backward(
    grad: Array, out: Array, normed: Array, inverse_std: Array, gain: Array, grad_others: Array
) -> None:
    """Turns the gradient of the activation into that of the linear part, in place, and adds those of bias, gain
    and shift to `grad_others`. Shapes: 3 x (m, b, h), (m, b), (m, 1, h), (3, m, 1, h)
    """
    members, batch, width = grad.shape
    for m in range(members):
        g = gain[m, 0]
        d_bias, d_gain, d_shift = grad_others[0, m, 0], grad_others[1, m, 0], grad_others[2, m, 0]
        for b in range(batch):
            d, y, row = grad[m, b], out[m, b], normed[m, b]
            total = row[0] * 0
            dot = row[0] * 0
            for i in range(width):
                masked = d[i] if y[i] > 0 else d[i] * 0
                d_shift[i] += masked
                d_gain[i] += masked * row[i]
                masked *= g[i]
                d[i] = masked
                total += masked
                dot += masked * row[i]
            mean, slope, scale = total / width, dot / width, inverse_std[m, b]
            for i in range(width):
                d[i] = (d[i] - mean - row[i] * slope) * scale
                d_bias[i] += d[i]
