"""Random changes of pictures keep what they promise to keep."""

import numpy as np
import pytest
import torch

from serl_suite.rewards.augment import gather_augmented, recoloured, turned_hue
from serl_suite.rewards.config import ClassifierConfig

ZERO, ONE = torch.zeros(4), torch.ones(4)


@pytest.fixture
def pictures():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 9, 9, 3), np.uint8))


def test_no_change_is_no_change(pictures):
    assert torch.equal(recoloured(pictures, brightness=ZERO, contrast=ONE, hue_rad=ZERO), pictures)


def test_a_turned_hue_keeps_grey_and_turns_back(pictures):
    grey = torch.full((4, 2, 2, 3), 97, dtype=torch.uint8)
    assert torch.equal(recoloured(grey, brightness=ZERO, contrast=ONE, hue_rad=0.7 * ONE), grey)
    product = turned_hue(torch.tensor([0.7])) @ turned_hue(torch.tensor([-0.7]))
    assert torch.allclose(product, torch.eye(3), atol=1e-6)
    red = torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(
        turned_hue(torch.tensor([2 * np.pi / 3]))[0] @ red, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6
    )


def test_brightness_and_contrast(pictures):
    flat = torch.full((4, 2, 2, 3), 100, dtype=torch.uint8)
    assert (recoloured(flat, brightness=0.2 * ONE, contrast=ONE, hue_rad=ZERO) == 151).all()
    assert (recoloured(flat, brightness=ZERO, contrast=2 * ONE, hue_rad=ZERO) == 72).all()  # 127.5 - 2 * 27.5


def test_every_picture_has_a_draw_of_its_own():
    same = np.tile(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8), (6, 1, 1, 1))
    rng = np.random.default_rng(0)
    out = gather_augmented(same, np.arange(6), ClassifierConfig(), rng, torch.device("cpu"))
    assert len({picture.numpy().tobytes() for picture in out}) == 6


def test_without_augmentation_rows_are_gathered():
    pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    plain = ClassifierConfig(brightness=0.0, contrast=0.0, hue_deg=0.0, shift=0)
    rows = np.array([3, 0, 3])
    out = gather_augmented(pictures, rows, plain, np.random.default_rng(0), torch.device("cpu"))
    assert np.array_equal(out.numpy(), pictures[rows])
