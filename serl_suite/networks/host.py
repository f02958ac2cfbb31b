"""What a training process asks of the host before it computes."""

import ctypes
import math
import platform

import torch

from serl_suite.errors import SerlError

__all__ = ["DeviceUnavailable", "check_device", "tune_host"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEEP_BYTES = 1 << 29
FLOAT32_ERROR = 1e-5  # of a product of unit scale; bfloat16 misses it by a factor of a hundred


class DeviceUnavailable(SerlError):
    """This machine has no such torch device."""


def tune_host(threads: int = 1) -> None:
    """Sets up this process for small, fast updates on the CPU; call it once, before the first tensor.

    - `threads` OpenMP threads: with an actor beside the learner on two cores, two threads are slower than one.
    - Freed memory stays in the process. An update frees and allocates the same half-megabyte blocks hundreds of
      times a second, and glibc would give each back to the kernel and fault it in again.
    - float32 products by oneDNN where they are still float32. torch takes MKL otherwise, which has no AVX-512
      path on AMD; it offers oneDNN under the name of a lower precision, which only CPUs with bfloat16 tiles use.
    """
    torch.set_num_threads(threads)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
    torch.set_float32_matmul_precision("medium")
    if _product_error() > FLOAT32_ERROR:
        torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = True


def check_device(name: str) -> None:
    """Sees that a torch device is there: that it holds numbers, and draws them.

    Raises:
        DeviceUnavailable: It is not; the message says why and names what is there.
    """
    try:
        torch.zeros(1, device=name)
        torch.Generator(name)
    except (RuntimeError, AssertionError) as error:  # torch raises the second where it was built without CUDA
        count = torch.cuda.device_count()
        there = ", ".join(["cpu", *(f"cuda:{number}" for number in range(count))])
        cause = str(error).partition("\n")[0]
        raise DeviceUnavailable(
            f"no device {name!r} on this machine ({cause}); choose one of {there}, or install a torch that "
            "was built for the device"
        ) from error


def _product_error() -> float:
    """Largest error of a float32 matrix product, relative to the size of its elements."""
    size = 256
    a, b = torch.randn(2, size, size, generator=torch.Generator().manual_seed(0))
    error = (a @ b).double() - a.double() @ b.double()
    return float(error.abs().max().item() / math.sqrt(size))
