"""The arrays of a replay: what it holds, what it costs, and both ways of shifting an image."""

import numpy as np
import pytest
import torch

from serl_suite.data.actions import ActionScale
from serl_suite.data.columns import ImageColumn, shifted
from serl_suite.data.replay import Replay
from serl_suite.errors import SerlError
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

IMAGE = ArraySpec(shape=(128, 128, 3), dtype="uint8")
SPEC = EnvSpec(
    task="two cameras",
    observation={
        "pose": ArraySpec(shape=(6,), dtype="float64"),
        "gripper": ArraySpec(shape=(1,), dtype="float32"),
        "front": IMAGE,
        "wrist": IMAGE,
    },
    action=ArraySpec(shape=(2,), dtype="float32", low=(0.0, -1.0), high=(10.0, 1.0)),
)


def test_a_step_with_two_cameras_takes_less_than_99_kilobytes():
    replay = Replay(SPEC, 1000, seed=0)
    assert replay.nbytes / 1000 <= 99_000


def test_a_transition_comes_back_as_it_went_in():
    rng, replay, steps = np.random.default_rng(0), Replay(SPEC, 4, seed=0, shift=0), []
    for index in range(2):
        observation = {
            "pose": rng.normal(size=6),
            "gripper": rng.normal(size=1).astype(np.float32),
            "front": rng.integers(0, 256, IMAGE.shape, np.uint8),
            "wrist": rng.integers(0, 256, IMAGE.shape, np.uint8),
        }
        action = np.array([7.5, 0.5], np.float32) if index else None
        steps.append(
            Step(seq=index, episode=0, index=index, observation=observation, action=action, reward=0.25)
        )
        replay.insert("a", steps[-1])
    batch = replay.sample(2)
    for step, state, images in zip(
        steps, (batch.state, batch.next_state), (batch.images, batch.next_images), strict=True
    ):
        flat = np.concatenate([step.observation["gripper"], step.observation["pose"]]).astype(np.float32)
        assert (state.numpy() == flat).all()
        for key in ("front", "wrist"):
            assert (images[key].numpy() == step.observation[key]).all()
    assert (batch.action == torch.tensor([0.5, 0.5])).all(), "each bound at -1 or 1"
    assert (batch.reward == 0.25).all()
    assert replay.states().shape == (2, 7)


def test_the_pictures_of_a_stack_are_shifted_alike_and_those_of_two_cameras_apart():
    picture = ArraySpec(shape=(32, 32, 3), dtype="uint8")
    keys = ("front", "front-1", "wrist")
    spec = EnvSpec(task="stack", observation=dict.fromkeys(keys, picture), action=SPEC.action)
    replay, rng = Replay(spec, 64, seed=0, shift=4), np.random.default_rng(0)
    for index in range(32):
        same = rng.integers(0, 256, picture.shape, np.uint8)
        action = np.array([1.0, 0.0], np.float32) if index else None
        replay.insert(
            "a", Step(seq=index, episode=0, index=index, observation=dict.fromkeys(keys, same), action=action)
        )
    batch = replay.sample(64)
    for images in (batch.images, batch.next_images):
        assert torch.equal(images["front"], images["front-1"])
        assert not torch.equal(images["front"], images["wrist"])


@pytest.mark.parametrize("shape", [(9, 14, 3), (32, 32, 3), (5, 5, 3)])
def test_both_shifts_are_a_crop_of_the_edge_padded_image(shape):
    """The compiled loop and the device's gather, against numpy's padding."""
    rng, pad = np.random.default_rng(0), 4
    images = rng.integers(0, 256, (6, *shape), np.uint8)
    column = ImageColumn(6, shape, pad, torch.device("cpu"))
    for row, image in enumerate(images):
        column.put(row, image)
    rows = rng.integers(0, 6, 200)
    offsets = column.draw_views(200, np.random.default_rng(1))
    assert offsets.min() == -pad
    assert offsets.max() == pad
    drawn = torch.from_numpy(rows), torch.from_numpy(offsets)
    ours = column.gather_views(*drawn).numpy()
    gathered = shifted(torch.from_numpy(images), *drawn).numpy()
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
    for i, (row, (dy, dx)) in enumerate(zip(rows, offsets, strict=True)):
        crop = padded[row, pad + dy : pad + dy + shape[0], pad + dx : pad + dx + shape[1]]
        assert (ours[i] == crop).all()
        assert (gathered[i] == crop).all()


def test_action_scale_maps_bounds_to_bounds_and_back():
    scale, rng = ActionScale(SPEC.action), np.random.default_rng(0)
    assert scale.to_env(np.array([-1.0, 1.0], np.float32)).tolist() == [0.0, 1.0]
    assert scale.to_unit(np.array([10.0, -1.0], np.float32)).tolist() == [1.0, -1.0]
    unit = rng.uniform(-1, 1, (100, 2)).astype(np.float32)
    assert np.allclose(scale.to_unit(scale.to_env(unit)), unit, atol=1e-6)
    assert scale.to_env(np.array([3.0, -3.0], np.float32)).tolist() == [10.0, -1.0], "clipped to the space"


def test_a_replay_too_small_for_a_transition_says_so():
    with pytest.raises(SerlError, match="capacity of 2"):
        Replay(SPEC, 1, seed=0)


@pytest.mark.gpu
def test_a_replay_on_the_device_gives_the_batches_of_the_host():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    rng, replays = (
        np.random.default_rng(0),
        [Replay(SPEC, 64, seed=5, device=device) for device in ("cpu", "cuda")],
    )
    for index in range(50):
        observation = {
            "pose": rng.normal(size=6),
            "gripper": rng.normal(size=1).astype(np.float32),
            "front": rng.integers(0, 256, IMAGE.shape, np.uint8),
            "wrist": rng.integers(0, 256, IMAGE.shape, np.uint8),
        }
        action = rng.uniform(-1, 1, 2).astype(np.float32) if index else None
        for replay in replays:
            replay.insert(
                "a", Step(seq=index, episode=0, index=index, observation=observation, action=action)
            )
    host, device = (replay.sample(64) for replay in replays)
    for a, b in zip(host, device, strict=True):
        if isinstance(a, dict):
            assert all((a[key] == b[key].cpu()).all() for key in a)
        elif a is not None:
            assert (a == b.cpu()).all()
