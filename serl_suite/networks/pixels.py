"""What all backbones do with pictures."""

import torch
from torch import Tensor

__all__ = ["compute_dtype", "convolution", "halvings", "imagenet_normalised"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pictures, which most published backbones expect to be normalised by."""


def compute_dtype(pictures: Tensor) -> torch.dtype:
    """In which convolutions compute: bfloat16 on a GPU, float32 on a CPU."""
    return torch.bfloat16 if pictures.is_cuda else torch.float32


def imagenet_normalised(pictures: Tensor) -> Tensor:
    """uint8 pictures as a backbone takes them, in `compute_dtype`.

    Shape: (n, height, width, 3) -> (n, 3, height, width)
    """
    # Filled on the device, for a copy from the host cannot become part of a CUDA graph.
    mean, std = (
        torch.stack([torch.full((), value, device=pictures.device) for value in values])
        for values in (MEAN, STD)
    )
    x = (pictures.float() / 255.0 - mean) / std
    return x.to(compute_dtype(pictures)).permute(0, 3, 1, 2)


def halvings(side: int, most: int) -> int:
    """How often convolutions of stride 2 halve a side until it is `most` or less [pixels]."""
    count = 0
    while side > most:
        side, count = (side + 1) // 2, count + 1
    return count


def convolution(inputs: int, outputs: int, size: int, generator: torch.Generator) -> Tensor:
    """He-normal weights in the layout that is quickest on a GPU. Shape: (outputs, inputs, size, size)"""
    std = (2.0 / (inputs * size * size)) ** 0.5
    weight: Tensor = torch.randn(outputs, inputs, size, size, generator=generator) * std
    return weight.contiguous(memory_format=torch.channels_last)
