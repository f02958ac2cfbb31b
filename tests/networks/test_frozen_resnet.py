"""The fast way of a frozen ResNet computes what the ResNet computes."""

import pytest
import torch

from serl_suite.networks.encoder_config import BadEncoder
from serl_suite.networks.frozen_resnet import FrozenResNet
from serl_suite.networks.resnet import DEPTHS, ResNet


def _resnet(name="resnet10"):
    """With random gains, some of them negative, and random shifts."""
    generator = torch.Generator().manual_seed(0)
    resnet = ResNet(DEPTHS[name], generator)
    for key, parameter in resnet.named_parameters():
        if key.endswith(("gain", "shift")):
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return resnet


def _pictures(n, height, width):
    return torch.randint(
        256, (n, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def _distance(ours, theirs):
    return ((ours.float() - theirs).norm() / theirs.norm()).item()


def _gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")


@pytest.mark.parametrize(("name", "height", "width"), [("resnet10", 64, 64), ("resnet18", 32, 48)])
@torch.no_grad()
def test_it_computes_what_the_resnet_computes(name, height, width):
    resnet, pictures = _resnet(name), _pictures(3, height, width)
    ours, theirs = FrozenResNet(resnet)(pictures), resnet(pictures)
    assert ours.shape == theirs.shape
    assert _distance(ours, theirs) < 1e-5


def test_it_keeps_the_weights_it_was_made_from():
    resnet, pictures = _resnet(), _pictures(1, 32, 32)
    frozen = FrozenResNet(resnet)
    before = frozen(pictures)
    for parameter in resnet.parameters():
        parameter.data.zero_()
    assert torch.equal(frozen(pictures), before)
    assert not list(frozen.parameters())
    assert not frozen.state_dict()


def test_sides_that_do_not_halve_twice_are_refused():
    with pytest.raises(BadEncoder, match="multiples of 4"):
        FrozenResNet(_resnet())(_pictures(1, 32, 30))


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "height", "width"), [("resnet10", 128, 128), ("resnet18", 64, 96)])
@torch.no_grad()
def test_the_kernels_compute_what_the_resnet_computes(name, height, width):
    device = _gpu()
    resnet, pictures = _resnet(name), _pictures(5, height, width)
    theirs = resnet(pictures)
    frozen = FrozenResNet(resnet.to(device))
    assert _distance(frozen(pictures.to(device)).cpu(), theirs) < 1e-2


@pytest.mark.gpu
def test_features_do_not_depend_on_the_rest_of_the_batch():
    device = _gpu()
    frozen, pictures = FrozenResNet(_resnet().to(device)), _pictures(600, 64, 64).to(device)
    torch.testing.assert_close(frozen(pictures)[-2:], frozen(pictures[-2:]), rtol=2e-2, atol=2e-2)
