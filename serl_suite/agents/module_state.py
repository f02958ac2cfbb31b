"""A network's tensors under a name of its own, for a checkpoint that holds several."""

from torch import Tensor, nn

__all__ = ["load_module", "module_state"]


def module_state(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under `name.<theirs>`."""
    return {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}


def load_module(name: str, module: nn.Module, state: dict[str, Tensor]) -> None:
    """Restores `module_state` from a state that may hold more."""
    prefix = f"{name}."
    module.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
