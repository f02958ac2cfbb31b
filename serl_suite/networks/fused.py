"""One hidden layer, Linear -> LayerNorm -> ReLU, for all members of an ensemble in one autograd node.

On the host everything after the product is one pass over memory (a compiled loop); elsewhere it is left to torch.
With one thread the passes that torch makes over the same numbers cost as much as the products themselves.
"""

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import layer_norm

__all__ = ["linear_norm_relu"]

EPS = 1e-5
Array = NDArray[np.float32]
# Sums may be reordered, which vectorises them; NaN and infinity keep their meaning, so a diverged loss still shows.
FASTMATH = {"reassoc", "contract", "nsz"}


def linear_norm_relu(x: Tensor, weight: Tensor, bias: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """`relu(gain * layer_norm(x W + b) + shift)` for each member.

    Args:
        x: Shape: (members, batch, inputs)
        weight: Shape: (members, inputs, outputs)
        bias: As gain and shift. Shape: (members, 1, outputs)

    Returns: Shape: (members, batch, outputs)
    """
    if x.device.type == "cpu":
        y: Tensor = _LinearNormReLU.apply(x, weight, bias, gain, shift)  # type: ignore[no-untyped-call]
        return y
    y = torch.baddbmm(bias, x, weight)
    return torch.relu(torch.addcmul(shift, layer_norm(y, y.shape[-1:], eps=EPS), gain))


class _LinearNormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  # torch gives the context no type
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        gain: Tensor,
        shift: Tensor,
    ) -> Tensor:
        normed = torch.baddbmm(bias, x, weight)
        out, inverse_std = torch.empty_like(normed), normed.new_empty(normed.shape[:2])
        _forward(normed.numpy(), gain.numpy(), shift.numpy(), out.numpy(), inverse_std.numpy())
        ctx.save_for_backward(x, weight, gain, normed, inverse_std, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight, gain, normed, inverse_std, out = ctx.saved_tensors
        grad_linear = torch.empty_like(out)
        grad_bias, grad_gain, grad_shift = (torch.zeros_like(gain) for _ in range(3))
        _backward(
            grad.contiguous().numpy(), out.numpy(), normed.numpy(), inverse_std.numpy(), gain.numpy(),
            grad_linear.numpy(), grad_bias.numpy(), grad_gain.numpy(), grad_shift.numpy(),
        )  # fmt: skip
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        return (
            torch.bmm(grad_linear, weight.transpose(1, 2)) if needs_x else None,
            torch.bmm(x.transpose(1, 2), grad_linear) if needs_weight else None,
            grad_bias,
            grad_gain,
            grad_shift,
        )


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
    grad: Array,
    out: Array,
    normed: Array,
    inverse_std: Array,
    gain: Array,
    grad_linear: Array,
    grad_bias: Array,
    grad_gain: Array,
    grad_shift: Array,
) -> None:
    """Gradient with respect to x W + b, and to the parameters (added to what is there)."""
    members, batch, width = grad.shape
    for m in range(members):
        g, d_bias, d_gain, d_shift = gain[m, 0], grad_bias[m, 0], grad_gain[m, 0], grad_shift[m, 0]
        for b in range(batch):
            d, y, row, d_row = grad[m, b], out[m, b], normed[m, b], grad_linear[m, b]
            total = row[0] * 0
            dot = row[0] * 0
            for i in range(width):
                masked = d[i] if y[i] > 0 else d[i] * 0
                d_shift[i] += masked
                d_gain[i] += masked * row[i]
                masked *= g[i]
                d_row[i] = masked
                total += masked
                dot += masked * row[i]
            mean, slope, scale = total / width, dot / width, inverse_std[m, b]
            for i in range(width):
                d_row[i] = (d_row[i] - mean - row[i] * slope) * scale
                d_bias[i] += d_row[i]
