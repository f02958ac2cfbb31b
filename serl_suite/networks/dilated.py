"""A small convolutional network with fine maps, for tasks where a few millimetres decide."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from serl_suite.networks.pixels import compute_dtype, convolution, halvings

__all__ = ["DilatedCNN"]

CHANNELS = 24
"""As accurate as 32 for telling a success from a near miss, in two thirds of the time."""
FINEST = 32
"""Pictures are halved until their side is no more than this."""
DILATIONS = (2, 4, 8)
"""With them a cell of the last map has seen most of the picture."""


class DilatedCNN(nn.Module):
    """3x3 convolutions of stride 2 with ReLU down to maps of 32 x 32, then dilated ones (Yu & Koltun 2016, arXiv
    1511.07122), each added to what it was given: they see ever more of the picture and keep its places apart.

    Args:
        side: Of the pictures [pixels].
        generator: Draws the weights; on the CPU.
    """

    def __init__(self, side: int, generator: torch.Generator) -> None:
        super().__init__()
        self.strides = (2,) * halvings(side, FINEST) or (1,)
        count = len(self.strides) + len(DILATIONS)
        weights = [convolution(3 if i == 0 else CHANNELS, CHANNELS, 3, generator) for i in range(count)]
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList([torch.zeros(CHANNELS) for _ in weights])

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 pictures to feature maps. Shape: (n, height, width, 3) -> (n, height', width', channels)"""
        dtype = compute_dtype(pictures)
        layers = [(w.to(dtype), b.to(dtype)) for w, b in zip(self.weights, self.biases, strict=True)]
        x = pictures.permute(0, 3, 1, 2).to(dtype) / 255.0 - 0.5
        for (weight, bias), stride in zip(layers[: -len(DILATIONS)], self.strides, strict=True):
            x = relu(conv2d(x, weight, bias, stride=stride, padding=1))
        for (weight, bias), dilation in zip(layers[-len(DILATIONS) :], DILATIONS, strict=True):
            x = x + relu(conv2d(x, weight, bias, padding=dilation, dilation=dilation))
        return x.permute(0, 2, 3, 1)
