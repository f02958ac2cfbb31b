"""What counts as a new view."""

import numpy as np
import pytest
from seen import picture
from serl_servers.cameras.picture import Eyesight


@pytest.mark.parametrize("ring", [1, 2, 4])
def test_buffers_that_are_handed_out_again_and_again_are_frozen(ring):
    eyesight, frames = Eyesight(), [picture(number) for number in range(ring)]
    assert [eyesight.objection(frame, frame) for frame in frames] == [None] * ring
    again = [eyesight.objection(frame, frame) for frame in 3 * frames]
    assert {objection[0] for objection in again} == {"frozen"}
    new = picture(100)
    assert eyesight.objection(new, new) is None


def test_a_black_picture_is_black_however_often_it_comes():
    eyesight, black = Eyesight(), np.zeros((48, 64, 3), np.uint8)
    assert {eyesight.objection(black, black)[0] for _ in range(3)} == {"black"}
