"""Processes that learn as one: each looks at a share of every batch, and all of them make the same step.

All hold the same replays and the same generators. A batch is drawn as a whole by each of them, of which the process of
rank r computes the transitions r, r + size, r + 2 size, ...; the mean of their gradients is the gradient of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["ALONE", "Ranks", "SharedGradients"]

ALIGNMENT = 4
"""Numbers to which a gradient's place is rounded up: kernels read 16 bytes at once."""


@dataclass(frozen=True)
class Ranks:
    """The place of this process among them."""

    rank: int = 0
    size: int = 1

    @property
    def share(self) -> slice:
        """What this process takes of a batch; of its parts as well, where `size` divides them."""
        return slice(self.rank, None, self.size)


ALONE = Ranks()


class SharedGradients:
    """Turns the gradients of some parameters into their mean over all ranks, by one all-reduce.

    Args:
        parameters: The same on every rank, whose default process group is there.
        ranks: More than one.
    """

    def __init__(self, parameters: Sequence[Tensor], ranks: Ranks) -> None:
        self._parameters, self._size = list(parameters), ranks.size
        starts, end = [], 0
        for parameter in parameters:
            starts.append(end)
            end += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
        self._flat = torch.zeros(end, device=parameters[0].device)
        self._views = [
            self._flat.as_strided(parameter.shape, parameter.stride(), start)
            for parameter, start in zip(parameters, starts, strict=True)
        ]

    def average(self) -> None:
        """Replaces the parameters' gradients; only operations on the device, for a CUDA graph."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        torch._foreach_copy_(self._views, gradients)
        dist.all_reduce(self._flat)
        self._flat /= self._size
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view
