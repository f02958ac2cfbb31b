"""Pictures of several cameras that belong together: properties over all arrivals."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from serl_servers.cameras.channel import Shot
from serl_servers.cameras.matching import matching, skew_s

from serl_suite.wire.camera_messages import Stamp

ARRIVALS = st.lists(st.integers(0, 10**9), min_size=1, max_size=8).map(sorted)


def shots(arrivals):
    return [
        Shot(Stamp(sequence=i + 1, host_ns=at), 1, np.zeros((1, 1, 3), np.uint8))
        for i, at in enumerate(arrivals)
    ]


@given(st.lists(ARRIVALS, min_size=1, max_size=4))
def test_no_other_picture_is_nearer_to_the_moment_that_all_have_seen(arrivals):
    chosen = matching([shots(of_one) for of_one in arrivals])
    moment = min(of_one[-1] for of_one in arrivals)
    for shot, of_one in zip(chosen, arrivals, strict=True):
        assert shot.stamp.host_ns in of_one
        assert abs(shot.stamp.host_ns - moment) == min(abs(at - moment) for at in of_one)
    taken = [shot.stamp.host_ns for shot in chosen]
    assert skew_s(chosen) == (max(taken) - min(taken)) * 1e-9


@given(st.integers(0, 33_333_333), st.integers(0, 33_333_333))
def test_two_cameras_at_one_rate_are_half_a_period_apart_at_most(phase, ahead):
    period = 33_333_333
    now = 10 * period + ahead
    both = [
        [at for k in range(12) if (at := k * period + offset) <= now][-8:] for offset in (0, phase)
    ]  # fmt: skip
    assert skew_s(matching([shots(of_one) for of_one in both])) <= 0.5 * period * 1e-9 + 1e-9


def test_of_one_camera_it_is_the_newest():
    chosen = matching([shots([1, 5, 9])])
    assert (chosen[0].stamp.host_ns, skew_s(chosen)) == (9, 0.0)
    assert (matching([]), skew_s([])) == ([], 0.0)
