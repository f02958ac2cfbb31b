"""Batches that are gathered on the host: into given memory, and of features that numpy has no type for."""

import numpy as np
import pytest
import torch

from serl_suite.agents.block_inputs import each
from serl_suite.data.columns import Features
from serl_suite.data.replay import Replay
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

IMAGE = ArraySpec(shape=(8, 8, 3), dtype="uint8")
SPEC = EnvSpec(
    task="T",
    observation={"state": ArraySpec(shape=(3,), dtype="float32"), "front": IMAGE, "wrist": IMAGE},
    action=ArraySpec(shape=(2,), dtype="float32", low=-1.0, high=1.0),
)


def mean_colours(images):
    return images.float().mean((1, 2)).to(torch.bfloat16)


def filled(features):
    replay, rng = Replay(SPEC, 32, seed=0, features=features), np.random.default_rng(0)
    for index in range(20):
        observation = {"state": rng.normal(size=3).astype(np.float32)}
        observation |= {key: rng.integers(0, 256, IMAGE.shape, np.uint8) for key in SPEC.image_keys}
        action = rng.uniform(-1, 1, 2).astype(np.float32) if index else None
        replay.insert("a", Step(seq=index, episode=0, index=index, observation=observation, action=action))
    return replay


@pytest.mark.parametrize(
    ("features", "dtype"),
    [(None, torch.uint8), (Features(mean_colours, 3, torch.bfloat16, views=2, seed=1), torch.bfloat16)],
    ids=["images", "features"],
)
def test_what_is_gathered_into_given_memory_is_what_is_gathered(features, dtype):
    replay = filled(features)
    draw = [torch.from_numpy(part) for part in replay.draw(6)]
    plain = replay.gather(*draw)
    place = each(torch.zeros_like, plain)
    placed = replay.gather(*draw, place)
    for key in SPEC.image_keys:
        for there, images, expected in (
            (place.images, placed.images, plain.images),
            (place.next_images, placed.next_images, plain.next_images),
        ):
            assert images[key] is there[key]
            assert images[key].dtype == dtype
            assert torch.equal(images[key], expected[key])
            assert expected[key].float().abs().sum() > 0


def test_the_shares_of_a_draw_make_up_the_whole():
    draw = filled(None).draw(6)
    parts = [draw.part(slice(rank, None, 2)) for rank in range(2)]
    assert np.array_equal(np.stack([part.rows for part in parts], -1).reshape(2, 6), draw.rows)
    assert np.array_equal(np.stack([part.views for part in parts], 3).reshape(2, 2, 6, 2), draw.views)
