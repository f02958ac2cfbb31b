"""A small convolutional network, quick enough to learn with the critics from scratch."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from serl_suite.networks.pixels import compute_dtype, convolution, halvings

__all__ = ["SmallCNN"]

CHANNELS = 32
COARSEST = 8
"""Pictures are halved until their side is this, so that a cell of the last map still says where something is."""


class SmallCNN(nn.Module):
    """3x3 convolutions of stride 2 with ReLU down to maps of 8 x 8, then one of stride 1.

    Args:
        side: Of the pictures [pixels].
        generator: Draws the weights; on the CPU.
    """

    def __init__(self, side: int, generator: torch.Generator) -> None:
        super().__init__()
        self.strides = (2,) * halvings(side, COARSEST) + (1,)
        weights = [
            convolution(3 if i == 0 else CHANNELS, CHANNELS, 3, generator) for i in range(len(self.strides))
        ]
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList([torch.zeros(CHANNELS) for _ in weights])

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 pictures to feature maps. Shape: (n, height, width, 3) -> (n, height', width', channels)"""
        dtype = compute_dtype(pictures)
        x = pictures.permute(0, 3, 1, 2).to(dtype) / 255.0 - 0.5
        for weight, bias, stride in zip(self.weights, self.biases, self.strides, strict=True):
            x = relu(conv2d(x, weight.to(dtype), bias.to(dtype), stride=stride, padding=1))
        return x.permute(0, 2, 3, 1)
