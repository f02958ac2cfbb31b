"""Backbones by name: from pictures to feature maps.

A backbone is a module that takes uint8 pictures (n, height, width, 3) and returns maps (n, height', width', channels):
bfloat16 on a GPU, float32 on a CPU.
"""

import torch
from torch import nn

from serl_suite.networks.cnn import SmallCNN
from serl_suite.networks.encoder_config import BadEncoder, EncoderConfig
from serl_suite.networks.resnet import DEPTHS, ResNet

__all__ = ["feature_shape", "make_backbone"]


def make_backbone(config: EncoderConfig, side: int, generator: torch.Generator) -> nn.Module:
    """The backbone that the settings name, on the CPU, frozen where they say so.

    Args:
        config: Names it, and its weights.
        side: Of the square pictures [pixels].
        generator: Draws the weights that no file gives.

    Raises:
        BadEncoder: There is no such backbone.
    """
    if config.backbone == "cnn":
        backbone: nn.Module = SmallCNN(side, generator)
    elif config.backbone in DEPTHS:
        backbone = ResNet(DEPTHS[config.backbone], generator)
    else:
        raise BadEncoder(f"no backbone is called {config.backbone!r}; choose cnn or one of {', '.join(DEPTHS)}")
    return backbone.requires_grad_(not config.frozen)


@torch.no_grad()
def feature_shape(backbone: nn.Module, side: int) -> tuple[int, int, int]:
    """(height, width, channels) of the maps of square pictures with that side [pixels]."""
    _, height, width, channels = backbone(torch.zeros(1, side, side, 3, dtype=torch.uint8)).shape
    return height, width, channels
