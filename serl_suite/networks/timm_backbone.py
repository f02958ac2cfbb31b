"""Any image model of timm as a backbone: `timm:NAME`, with weights from a local file. Nothing is downloaded."""

import difflib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from serl_suite.networks.encoder_config import RANDOM, BadEncoder, EncoderConfig
from serl_suite.networks.pixels import compute_dtype
from serl_suite.networks.weights import find_weights, load_tensors, read_weights

__all__ = ["PREFIX", "TimmBackbone", "make_timm_backbone"]

PREFIX = "timm:"


class TimmBackbone(nn.Module):
    """The last feature maps of a model, always as in evaluation: no dropout, batch statistics as they were trained, so
    that a picture's features depend on no other picture.

    Args:
        model: One of timm's, with `forward_intermediates`.
        mean, std: Of each colour, that its pictures are normalised by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model: Any = model.eval()  # timm carries no types
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def train(self, mode: bool = True) -> "TimmBackbone":
        """Stays as in evaluation, whatever the mode."""
        return super().train(False)

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 pictures to feature maps. Shape: (n, height, width, 3) -> (n, height', width', channels)"""
        dtype = compute_dtype(pictures)
        x = ((pictures.float() / 255.0 - self.mean) / self.std).permute(0, 3, 1, 2)
        with torch.autocast(pictures.device.type, dtype, enabled=dtype != torch.float32):
            maps: Tensor
            (maps,) = self.model.forward_intermediates(
                x, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
            )
        return maps.to(dtype).permute(0, 2, 3, 1)


def make_timm_backbone(config: EncoderConfig, side: int, generator: torch.Generator) -> TimmBackbone:
    """The model that the settings name, with the weights that they name.

    Args:
        config: Its backbone is `timm:NAME`.
        side: Of the square pictures [pixels].
        generator: Draws the weights that no file gives.

    Raises:
        BadEncoder: timm is not installed, has no such model, or the weights are absent or of another architecture.
    """
    timm, name = _import_timm(), config.backbone.removeprefix(PREFIX)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "`timm.list_models()` lists them"
        raise BadEncoder(f"timm {timm.__version__} has no model {name!r}; {hint}")
    published = timm.get_pretrained_cfg(name, allow_unregistered=True) or timm.models.PretrainedCfg()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        arguments = {"img_size": side} if published.fixed_input_size else {}
        model = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    if not hasattr(model, "forward_intermediates"):
        raise BadEncoder(f"timm's {name} gives no feature maps; choose another, for example timm:resnet18")
    if config.weights not in (None, RANDOM):
        _load(model, config, published)
    return TimmBackbone(model, published.mean, published.std)


def _import_timm() -> ModuleType:
    try:
        import timm
    except (
        ImportError,
        RuntimeError,
    ) as error:  # RuntimeError: a torchvision that is built for another torch
        raise BadEncoder(
            f"backbones timm:NAME need timm, which cannot be imported ({error}); pip install serl-suite[timm], with "
            "a torchvision that is built for this torch"
        ) from error
    return timm


def _load(model: nn.Module, config: EncoderConfig, published: Any) -> None:  # noqa: ANN401 - as above
    """Loads a file as timm publishes it; what classifies is left out, for the model is made without."""
    path = find_weights(config.weights or "")
    tensors, info = read_weights(path)
    if info is not None and info.backbone != config.backbone:
        raise BadEncoder(
            f"{path} holds weights of {info.backbone}, not of {config.backbone}; set the backbone to it"
        )
    classifiers = published.classifier or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    own = model.state_dict()
    kept = {
        key: tensor
        for key, tensor in tensors.items()
        if key in own or not key.startswith(tuple(f"{classifier}." for classifier in classifiers))
    }
    load_tensors(model, kept, path, config.backbone)
