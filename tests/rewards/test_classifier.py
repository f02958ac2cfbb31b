"""A classifier learns in all its layers, keeps what it has learnt in a file, and refuses what is not one."""

import msgspec
import numpy as np
import pytest
import torch

from serl_suite.data.checkpoint import load_checkpoint, save_checkpoint
from serl_suite.networks.encoder_config import RANDOM
from serl_suite.rewards.classifier import RewardModel
from serl_suite.rewards.config import BadClassifier, ClassifierConfig
from serl_suite.rewards.labels import Labels
from serl_suite.rewards.scores import score
from serl_suite.rewards.training import Training
from serl_suite.wire.spaces import ArraySpec


def enlarged(frames):
    """The same with pictures twice as large: a ResNet's maps of the small ones are a single cell, which is nowhere."""
    clips = [
        clip._replace(pictures={c: p.repeat(2, 1).repeat(2, 2) for c, p in clip.pictures.items()})
        for clip in frames.clips
    ]
    large = ArraySpec(shape=(64, 64, 3), dtype="uint8")
    observation = {key: large if spec.is_image else spec for key, spec in frames.spec.observation.items()}
    return frames._replace(clips=clips, spec=msgspec.structs.replace(frames.spec, observation=observation))


@pytest.mark.parametrize("backbone", ["cnn", "dilated", "resnet10"])
def test_gradients_reach_every_layer(frames, backbone):
    config = ClassifierConfig(backbone=backbone)
    training = Training(enlarged(frames), config, [])
    training.loss(np.arange(8))[0].backward()
    still = [
        name
        for name, p in training.network.named_parameters()
        if p.grad is None or not p.grad.abs().max() > 0
    ]
    assert still == []


def test_an_update_moves_every_layer_but_a_frozen_backbone(frames):
    for frozen in (False, True):
        config = ClassifierConfig(frozen=frozen, weights=RANDOM if frozen else None, epochs=1)
        training = Training(frames, config, [])
        before = {name: p.detach().clone() for name, p in training.network.named_parameters()}
        next(training.epochs())
        still = {name for name, p in training.network.named_parameters() if torch.equal(p, before[name])}
        assert still == ({name for name in before if "backbone" in name} if frozen else set())


def test_an_epoch_is_every_training_frame_once(frames, monkeypatch):
    training = Training(frames, ClassifierConfig(epochs=1, batch=7), [])
    loss, seen = training.loss, []
    monkeypatch.setattr(training, "loss", lambda rows: (seen.extend(rows.tolist()), loss(rows))[1])
    next(training.epochs())
    count = len(frames.only(training.parts.training).labels)
    assert sorted(seen) == list(range(count))


def test_it_learns_what_a_success_is(trained, frames):
    scores = score(trained, frames.only(trained.card.parts.test))
    assert scores.accuracy > 0.95
    assert scores.area > 0.99
    assert scores.calibration.error < 0.1  # of 90 frames
    found = [o for o in scores.outcomes if o.happened is not None]
    assert all(o.declared is not None and not o.false for o in found)


def test_the_file_gives_the_same_classifier_back(trained, frames, tmp_path):
    trained.save(tmp_path / "m.safetensors")
    again = RewardModel.load(tmp_path / "m.safetensors")
    assert again.card == trained.card
    pictures = frames.clips[0].pictures
    assert np.array_equal(again.probabilities(pictures), trained.probabilities(pictures))


def test_weights_of_another_architecture_are_refused(trained, tmp_path):
    trained.save(tmp_path / "m.safetensors")
    tensors, meta = load_checkpoint(tmp_path / "m.safetensors")
    meta["config"]["backbone"] = "resnet10"
    save_checkpoint(tmp_path / "m.safetensors", tensors, meta)
    with pytest.raises(BadClassifier, match="another architecture than the resnet10"):
        RewardModel.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0.0), ("threshold", 1.5), ("log_prior", [0.0]), ("success", "elsewhere"), ("side", 0)],
)
def test_a_card_that_cannot_be_is_refused(trained, tmp_path, field, value):
    trained.save(tmp_path / "m.safetensors")
    tensors, meta = load_checkpoint(tmp_path / "m.safetensors")
    save_checkpoint(tmp_path / "m.safetensors", tensors, {**meta, field: value})
    with pytest.raises(BadClassifier, match="is no classifier"):
        RewardModel.load(tmp_path / "m.safetensors")


def test_files_that_are_no_classifier_are_refused(trained, tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(BadClassifier, match="serl reward train"):
        RewardModel.load(path)
    path.write_bytes(b"not at all")
    with pytest.raises(BadClassifier, match="damaged"):
        RewardModel.load(path)
    save_checkpoint(path, {}, {"version": 3})
    with pytest.raises(BadClassifier, match="is no classifier"):
        RewardModel.load(path)
    save_checkpoint(path, {}, msgspec.to_builtins(msgspec.structs.replace(trained.card, format=9)))
    with pytest.raises(BadClassifier, match="format 9"):
        RewardModel.load(path)


def test_three_classes(frames, config):
    """Far, near and there, by where the lamp is; the success is one of them."""
    classes = Labels(classes=("far", "near", "there"), success="there")
    clips = [
        clip._replace(labels=np.where(clip.labels == 1, 2, (clip.states["x"][:, 0] > 0.4).astype(np.int64)))
        for clip in frames.clips
    ]
    three = frames._replace(clips=clips, classes=classes.classes, success=classes.success)
    training = Training(three, config, [])
    list(training.epochs())
    model = training.finish()
    scores = score(model, three.only(model.card.parts.test))
    assert np.trace(scores.confusion) / scores.confusion.sum() > 0.85
    assert scores.accuracy > 0.95
    assert model.probabilities(clips[0].pictures).sum(1) == pytest.approx(1.0)


def test_a_diverged_training_says_so(frames):
    training = Training(frames, ClassifierConfig(epochs=2), [])
    with torch.no_grad():
        training.network.out.fill_(float("nan"))
    with pytest.raises(BadClassifier, match="lower --learning-rate"):
        list(training.epochs())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test_share": 0.9}, "something for training"),
        ({"hold": 0}, "1 or more"),
        ({"target_fpr": 2.0}, "0.002"),
    ],
)
def test_settings_that_make_no_sense(change, words):
    with pytest.raises(BadClassifier, match=words):
        ClassifierConfig(**change)
