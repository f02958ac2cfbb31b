"""What to do where a GPU's memory is full."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from serl_suite.errors import SerlError

__all__ = ["DeviceFull", "out_of_memory_explained"]


class DeviceFull(SerlError):
    """There is no memory left on the GPU."""


@contextmanager
def out_of_memory_explained(device: torch.device) -> Iterator[None]:
    """Around what takes memory there.

    Raises:
        DeviceFull: In the place of torch's error; the message says what to do.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise DeviceFull(
            f"{device} has no memory left{_usage(device)}; end what else runs there (nvidia-smi lists it), keep the "
            "replay in the host's memory with --learner.replay-device cpu, or give a smaller "
            "--learner.replay-capacity or --agent.batch-size"
        ) from error


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether that is the cause; the end of a capture that it broke off is an error of its own."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
            return True
        error = error.__context__
    return False


def _usage(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    ours = torch.cuda.memory_reserved(device)
    return f" ({1e-9 * total:.3g} GB, of which the learner took {1e-9 * ours:.3g} GB and {1e-9 * free:.3g} GB are free)"
