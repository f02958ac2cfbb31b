"""Adam as one kernel per step, and its moments as plain tensors for a checkpoint."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["adam_state", "descend", "load_adam_state", "make_adam"]


def make_adam(parameters: Sequence[Tensor], learning_rate: float) -> torch.optim.Adam:
    """Adam with its state already there, so that it can be saved and loaded at any time."""
    optimiser = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    for parameter in parameters:
        optimiser.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimiser


def descend(optimiser: torch.optim.Adam, loss: Tensor, parameters: Sequence[Tensor]) -> None:
    """One step down the gradient of `loss`; moves exactly these parameters."""
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimiser.step()


def adam_state(name: str, optimiser: torch.optim.Adam) -> dict[str, Tensor]:
    """Moments and step counts under `name.<parameter's place>.<what>`."""
    return {
        f"{name}.{place}.{what}": tensor
        for place, parameter in enumerate(optimiser.param_groups[0]["params"])
        for what, tensor in optimiser.state[parameter].items()
    }


def load_adam_state(name: str, optimiser: torch.optim.Adam, state: dict[str, Tensor]) -> None:
    """Restores `adam_state`."""
    for key, tensor in adam_state(name, optimiser).items():
        tensor.copy_(state[key])
