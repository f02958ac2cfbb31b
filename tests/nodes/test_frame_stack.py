"""Each picture is seen once at every age, in its own episode only."""

import numpy as np
import pytest

from serl_suite.nodes.frame_stack import FrameStack
from serl_suite.wire.spaces import ArraySpec, EnvSpec

IMAGE = ArraySpec(shape=(4, 4, 3), dtype="uint8")
SPEC = EnvSpec(
    task="T",
    observation={"pose": ArraySpec(shape=(1,), dtype="float32"), "front": IMAGE, "wrist": IMAGE},
    action=ArraySpec(shape=(1,), dtype="float32", low=-1.0, high=1.0),
)


def picture(number):
    return {
        "pose": np.array([number], np.float32),
        "front": np.full((4, 4, 3), number, np.uint8),
        "wrist": np.full((4, 4, 3), 100 + number, np.uint8),
    }


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_every_age_shows_its_step(frames):
    stack = FrameStack(SPEC, frames)
    for first in (10, 40):  # two episodes
        for number in range(first, first + 6):
            seen = stack.reset(picture(number)) if number == first else stack.add(picture(number))
            stack.spec.check_observation(seen)
            assert seen["pose"] == number
            for age in range(frames):
                key = "" if age == 0 else f"-{age}"
                expected = max(first, number - age)
                assert (seen[f"front{key}"] == expected).all()
                assert (seen[f"wrist{key}"] == 100 + expected).all()
    assert len(stack.spec.image_keys) == 2 * frames


def test_without_cameras_nothing_is_stacked():
    spec = EnvSpec(task="T", observation={"pose": SPEC.observation["pose"]}, action=SPEC.action)
    stack = FrameStack(spec, 3)
    assert stack.spec.observation.keys() == {"pose"}
    assert stack.reset({"pose": np.zeros(1)}).keys() == stack.add({"pose": np.zeros(1)}).keys() == {"pose"}
