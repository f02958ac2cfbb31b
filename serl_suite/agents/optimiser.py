"""Adam as one kernel per step, and its moments as plain tensors for a checkpoint."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

__all__ = ["adam_state", "compiled_step", "descend", "differentiate", "load_adam_state", "make_adam"]


def make_adam(parameters: Sequence[Tensor], learning_rate: float) -> torch.optim.Adam:
    """Adam with its state already there, so that it can be saved and loaded at any time."""
    on_gpu = parameters[0].device.type == "cuda"
    optimiser = torch.optim.Adam(parameters, lr=learning_rate, fused=True, capturable=on_gpu)
    for parameter in parameters:
        optimiser.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimiser


def descend(optimiser: torch.optim.Adam, loss: Tensor, parameters: Sequence[Tensor]) -> None:
    """One step down the gradient of `loss`; moves exactly these parameters."""
    differentiate(loss, parameters)
    optimiser.step()


def differentiate(loss: Tensor, parameters: Sequence[Tensor]) -> None:
    """Sets the gradients of exactly these parameters, in their own memory layout: the fused step on a CPU takes it for
    granted, and reads past the end of a gradient that is laid out otherwise."""
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        alike = gradient.stride() == parameter.stride()
        parameter.grad = gradient if alike else torch.empty_like(parameter).copy_(gradient)


def compiled_step(
    optimiser: torch.optim.Adam, targets: Sequence[Tensor] = (), tau: float = 0.0
) -> Callable[[], None]:
    """The optimiser's step, after which `targets` go the share `tau` towards the first parameters; for a CUDA device.

    Compiled, it fills the device; torch's fused kernel gives every 65,536 numbers to one of its 132 processors.
    """
    group = optimiser.param_groups[0]
    parameters: list[Tensor] = group["params"]
    states = [optimiser.state[parameter] for parameter in parameters]
    firsts, seconds, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))

    def move(gradients: list[Tensor]) -> None:
        adam(
            parameters, gradients, firsts, seconds, [], steps, foreach=True, capturable=True, amsgrad=False,
            beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"], weight_decay=0.0, eps=group["eps"],
            maximize=False,
        )  # fmt: skip
        if targets:
            torch._foreach_lerp_(list(targets), parameters[: len(targets)], tau)

    compiled = torch.compile(torch.no_grad()(move), dynamic=False)
    return lambda: compiled([parameter.grad for parameter in parameters if parameter.grad is not None])


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
