"""States of many units brought to one scale."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Normaliser"]

STD_MIN = 1e-2  # an element that hardly moved in the first data must not become the loudest when it does
CLIP = 10.0


class Normaliser(nn.Module):
    """`clip((s - mean) / std, -10, 10)` with statistics that are set once and then never move.

    Moving statistics would change the meaning of every network input under the critics' feet.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def fit(self, states: NDArray[np.float32]) -> None:
        """Takes the statistics of the first data. Shape: (n, dim)"""
        wide = states.astype(np.float64)
        self.mean.copy_(torch.from_numpy(wide.mean(0)))
        self.scale.copy_(torch.from_numpy(1.0 / np.maximum(wide.std(0), STD_MIN)))

    def forward(self, state: Tensor) -> Tensor:
        """Shape: (batch, dim) -> (batch, dim)"""
        return ((state - self.mean) * self.scale).clamp_(-CLIP, CLIP)
