"""Backbones by name: what a name gives, and that nothing random comes unasked."""

import builtins

import numpy as np
import pytest
import safetensors.torch
import torch

from serl_suite.networks.backbone import feature_shape, make_backbone
from serl_suite.networks.encoder_config import BadEncoder, EncoderConfig


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=3, side=64, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8))


def random(backbone, **settings):
    return EncoderConfig(backbone=backbone, frozen=True, weights="random", **settings)


@pytest.fixture(scope="module")
def timm():
    """timm itself. PyPI's torchvision has operators compiled for a torch with CUDA, which do not load beside a torch
    for the CPU; timm's models use none of them, but torchvision looks for two by their names."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm

    return timm


@pytest.mark.parametrize(
    ("name", "side", "shape"),
    [
        ("cnn", 64, (8, 8, 32)),
        ("cnn", 128, (8, 8, 32)),
        ("dilated", 32, (32, 32, 24)),
        ("dilated", 64, (32, 32, 24)),
        ("dilated", 128, (32, 32, 24)),
        ("resnet10", 64, (2, 2, 512)),
        ("resnet18", 128, (4, 4, 512)),
    ],
)
def test_a_name_gives_maps_of_the_shape_it_tells(name, side, shape):
    backbone = make_backbone(random(name), side, seeded())
    maps = backbone(pictures(2, side))
    assert maps.shape == (2, *shape)
    assert maps.dtype == torch.float32
    assert feature_shape(backbone, side) == shape
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("name", ["cnn", "dilated", "resnet10"])
def test_a_random_network_by_name_is_the_same_for_actor_and_learner(name):
    actor, learner = (make_backbone(random(name), 64, seeded(seed)) for seed in (1, 2))
    assert torch.equal(actor(pictures()), learner(pictures()))


def test_a_backbone_that_is_trained_follows_the_seed():
    a, b, c = (make_backbone(EncoderConfig(), 64, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(a(pictures()), b(pictures()))
    assert not torch.equal(a(pictures()), c(pictures()))
    assert all(parameter.requires_grad for parameter in a.parameters())


def test_a_frozen_backbone_without_weights_is_refused():
    with pytest.raises(BadEncoder, match=r"frozen cnn needs weights.*serl encoder pretrain.*`random`"):
        EncoderConfig(frozen=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [("resnet11", "did you mean resnet1"), ("vgg", "choose cnn, dilated, resnet10, resnet18 or timm:NAME")],
)
def test_an_unknown_name_is_answered_with_those_there_are(name, words):
    with pytest.raises(BadEncoder, match=words):
        make_backbone(random(name), 64, seeded())


@pytest.mark.parametrize(
    ("name", "side", "shape"),
    [
        ("resnet18.a1_in1k", 96, (3, 3, 512)),
        ("convnext_atto", 64, (2, 2, 320)),
        ("vit_tiny_patch16_224", 64, (4, 4, 192)),  # positions are made for the side
        ("swin_tiny_patch4_window7_224", 64, (2, 2, 768)),  # channels last inside
    ],
)
def test_models_of_timm_give_maps(timm, name, side, shape):
    backbone = make_backbone(random(f"timm:{name}"), side, seeded())
    assert feature_shape(backbone, side) == shape
    assert torch.equal(
        backbone(pictures(1, side)), make_backbone(random(f"timm:{name}"), side, seeded(9))(pictures(1, side))
    )


def test_weights_of_timm_come_from_a_file_as_timm_publishes_it(timm, tmp_path):
    """With the classifier inside, and batch statistics that training changed: against timm's own forward pass."""
    model = timm.create_model("resnet18", pretrained=False)
    with torch.no_grad():
        for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
            norm.running_mean.uniform_(-0.1, 0.1, generator=seeded())
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(model.state_dict(), file)
    config = EncoderConfig(backbone="timm:resnet18", frozen=True, weights=str(file))
    backbone = make_backbone(config, 64, seeded()).train()  # fine-tuning must not mix the pictures of a batch
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    inputs = (pictures().permute(0, 3, 1, 2) / 255.0 - mean) / std
    expected = model.eval().forward_features(inputs).permute(0, 2, 3, 1)
    torch.testing.assert_close(backbone(pictures()), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(backbone(pictures()[1:2]), expected[1:2], rtol=1e-4, atol=1e-4)


def test_a_fine_tuned_model_of_timm_has_gradients(timm):
    backbone = make_backbone(EncoderConfig(backbone="timm:resnet18"), 64, seeded())
    backbone(pictures(1)).sum().backward()
    assert backbone.model.conv1.weight.grad.abs().sum() > 0


def test_another_model_s_weights_and_an_unknown_model_are_refused(timm, tmp_path):
    file = tmp_path / "other.safetensors"
    safetensors.torch.save_file(timm.create_model("resnet34", pretrained=False).state_dict(), file)
    with pytest.raises(
        BadEncoder, match=r"other.safetensors holds weights of another architecture than timm:resnet18"
    ):
        make_backbone(EncoderConfig(backbone="timm:resnet18", frozen=True, weights=str(file)), 64, seeded())
    with pytest.raises(BadEncoder, match=r"no model 'resnet19'; did you mean .*resnet18"):
        make_backbone(random("timm:resnet19"), 64, seeded())


def test_without_timm_the_error_names_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *arguments, **keywords):
        if name == "timm":
            raise ModuleNotFoundError("No module named 'timm'")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(BadEncoder, match=r"pip install serl-suite\[timm\]"):
        make_backbone(random("timm:resnet18"), 64, seeded())
