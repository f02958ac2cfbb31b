"""Weights files: found by path or name, and refused where they do not fit."""

import json

import pytest
import safetensors.torch
import torch

from serl_suite.networks.backbone import make_backbone
from serl_suite.networks.encoder_config import BadEncoder, EncoderConfig
from serl_suite.networks.weights import WeightsInfo, encode_weights, read_weights, weights_fingerprint


def made(backbone="cnn", side=64, seed=3):
    return make_backbone(EncoderConfig(backbone=backbone), side, torch.Generator().manual_seed(seed))


def written(path, backbone="cnn", side=64, seed=3):
    """A weights file as pretraining writes it."""
    info = WeightsInfo(
        backbone=backbone,
        side=side if backbone == "cnn" else None,
        trained={"objective": "none", "seed": seed},
        source={"Pick-v0 wrist": 100},
    )
    path.write_bytes(encode_weights(made(backbone, side, seed), info))
    return path


def contiguous(network):
    return {name: tensor.contiguous() for name, tensor in network.state_dict().items()}


def loaded(weights, backbone="cnn", side=64, seed=9):
    config = EncoderConfig(backbone=backbone, frozen=True, weights=str(weights))
    return make_backbone(config, side, torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def no_folder(monkeypatch):
    monkeypatch.delenv("SERL_WEIGHTS", raising=False)


@pytest.mark.parametrize("backbone", ["cnn", "resnet10"])
def test_a_file_gives_the_network_that_was_saved(tmp_path, backbone):
    file = written(tmp_path / "a.safetensors", backbone)
    pictures = torch.randint(0, 256, (2, 64, 64, 3), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    assert torch.equal(loaded(file, backbone)(pictures), made(backbone)(pictures))
    _, info = read_weights(file)
    assert info.source == {"Pick-v0 wrist": 100}
    assert info.trained["seed"] == 3


def test_a_name_is_looked_up_in_the_folder(tmp_path, monkeypatch):
    written(tmp_path / "pick.safetensors")
    with pytest.raises(
        BadEncoder, match=r"no weights file pick, and SERL_WEIGHTS is not set.*export SERL_WEIGHTS"
    ):
        loaded("pick")
    monkeypatch.setenv("SERL_WEIGHTS", str(tmp_path))
    for name in ("pick", "pick.safetensors"):
        assert torch.equal(loaded(name).weights[0], made().weights[0])
    with pytest.raises(
        BadEncoder, match=rf"no weights pik, neither .* SERL_WEIGHTS={tmp_path}; did you mean pick\?"
    ):
        loaded("pik")
    with pytest.raises(BadEncoder, match=r"no weights resnet, .*it holds pick"):
        loaded("resnet")


@pytest.mark.parametrize(
    ("there", "wanted", "words"),
    [
        (
            ("resnet10", 64),
            ("cnn", 64),
            r"holds weights of resnet10, not of cnn; set the backbone to resnet10",
        ),
        (("resnet10", 64), ("resnet18", 64), r"holds weights of resnet10, not of resnet18"),
        (("cnn", 128), ("cnn", 64), r"trained on pictures of 128 x 128, these are 64 x 64.*--side 64"),
    ],
)
def test_weights_of_another_architecture_or_side_are_refused(tmp_path, there, wanted, words):
    file = written(tmp_path / "a.safetensors", *there)
    with pytest.raises(BadEncoder, match=words):
        loaded(file, *wanted)


def test_a_backbone_that_does_not_look_at_scale_takes_any_side(tmp_path):
    file = written(tmp_path / "a.safetensors", "resnet10", 128)
    assert torch.equal(loaded(file, "resnet10", 64).stem, made("resnet10").stem)


def test_a_header_that_lies_is_found_out_by_the_shapes(tmp_path):
    tensors = contiguous(made()) | {"weights.0": torch.zeros(32, 4, 3, 3)}
    del tensors["biases.2"]
    header = {
        "serl_backbone": json.dumps(
            {"version": 1, "backbone": "cnn", "side": 64, "trained": {}, "source": {}}
        )
    }
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", header)
    with pytest.raises(BadEncoder, match=r"biases.2 is absent there, .*; weights.0 is \(32, 4, 3, 3\) there"):
        loaded(tmp_path / "a.safetensors")


def test_damaged_files_and_files_of_others_are_refused(tmp_path):
    whole = written(tmp_path / "a.safetensors").read_bytes()
    file = tmp_path / "b.safetensors"
    for damaged in (whole[:100], whole[: len(whole) // 2], b"", b"not weights" * 10):
        file.write_bytes(damaged)
        with pytest.raises(BadEncoder, match=r"b.safetensors is damaged.*copy it again"):
            loaded(file)
    safetensors.torch.save_file(contiguous(made()), file)
    with pytest.raises(BadEncoder, match=r"does not say which architecture"):
        loaded(file)
    for header, words in (
        ('{"version": 2}', "weights version 2, this serl_suite reads 1"),
        ("{", "is damaged"),
    ):
        safetensors.torch.save_file(contiguous(made()), file, {"serl_backbone": header})
        with pytest.raises(BadEncoder, match=words):
            loaded(file)


def test_a_fingerprint_tells_frozen_backbones_apart(tmp_path):
    a, b = (written(tmp_path / f"{seed}.safetensors", seed=seed) for seed in (1, 2))
    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes(a.read_bytes())

    def fingerprint(weights, *, frozen=True):
        return weights_fingerprint(EncoderConfig(weights=weights, frozen=frozen))

    assert fingerprint(str(a)) == fingerprint(str(copy))
    assert fingerprint(str(a)) != fingerprint(str(b))
    assert fingerprint("random") not in (None, fingerprint(str(a)))
    assert fingerprint(str(a), frozen=False) is None, "the policy brings them"
    with pytest.raises(BadEncoder, match="no weights file"):
        fingerprint(str(tmp_path / "none"))
