"""Backbones by name: from pictures to feature maps.

A backbone is a module that takes uint8 pictures (n, height, width, 3) and returns maps (n, height', width', channels):
bfloat16 on a GPU, float32 on a CPU.
"""

import difflib

import torch
from torch import nn

from serl_suite.networks.cnn import SmallCNN
from serl_suite.networks.dilated import DilatedCNN
from serl_suite.networks.encoder_config import RANDOM, BadEncoder, EncoderConfig
from serl_suite.networks.resnet import DEPTHS, ResNet
from serl_suite.networks.timm_backbone import PREFIX, make_timm_backbone
from serl_suite.networks.weights import load_into

__all__ = ["OURS", "feature_shape", "make_backbone"]

OURS = ("cnn", "dilated", *DEPTHS)
"""Names of the backbones that need no other package."""
RANDOM_SEED = 0
"""Of a random network that is asked for by name: the same on every machine that holds a part of a run."""


def make_backbone(config: EncoderConfig, side: int, generator: torch.Generator) -> nn.Module:
    """The backbone that the settings name with the weights that they name, on the CPU, frozen where they say so.

    Args:
        config: Names it, and its weights.
        side: Of the square pictures [pixels].
        generator: Draws the weights where the settings name none.

    Raises:
        BadEncoder: There is no such backbone, or its weights are absent, damaged, or of another architecture or side.
    """
    if config.weights == RANDOM:
        generator = torch.Generator().manual_seed(RANDOM_SEED)
    if config.backbone.startswith(PREFIX):
        backbone: nn.Module = make_timm_backbone(config, side, generator)
    else:
        backbone = _ours(config.backbone, side, generator)
        if config.weights not in (None, RANDOM):
            load_into(backbone, config, side)
    return backbone.requires_grad_(not config.frozen)


@torch.no_grad()
def feature_shape(backbone: nn.Module, side: int) -> tuple[int, int, int]:
    """(height, width, channels) of the maps of square pictures with that side [pixels]."""
    _, height, width, channels = backbone(torch.zeros(1, side, side, 3, dtype=torch.uint8)).shape
    return height, width, channels


def _ours(name: str, side: int, generator: torch.Generator) -> nn.Module:
    if name == "cnn":
        return SmallCNN(side, generator)
    if name == "dilated":
        return DilatedCNN(side, generator)
    if name in DEPTHS:
        return ResNet(DEPTHS[name], generator)
    near = difflib.get_close_matches(name, OURS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(OURS)} or {PREFIX}NAME"
    raise BadEncoder(f"no backbone is called {name!r}; {hint}")
