"""Which of the kept versions an actor gets."""

import numpy as np
import pytest

from serl_suite.nodes.weights_shelf import KEPT_VERSIONS, WeightsShelf
from serl_suite.wire.codec import Codec
from serl_suite.wire.messages import WeightsRequest


def make_shelf(versions):
    shelf = WeightsShelf()
    for version in versions:
        shelf.publish(version, {"w": np.full(3, version, np.float32)})
    return shelf


def version_for(shelf, **request):
    frames = shelf.ask(b"actor", WeightsRequest(**request))
    return None if frames is None else Codec().decode([bytes(frame) for frame in frames]).version


def test_in_order_every_kept_version_comes_in_turn():
    shelf, have, seen = make_shelf(range(20)), 20 - KEPT_VERSIONS - 1, []
    while (version := version_for(shelf, have_version=have, in_order=True)) is not None:
        seen.append(version)
        have = version
    assert seen == list(range(20 - KEPT_VERSIONS, 20))


@pytest.mark.parametrize("in_order", [False, True])
def test_an_actor_that_has_none_gets_the_newest(in_order):
    """One that was started again must not act with, nor lag behind by, all the versions that are kept."""
    assert version_for(make_shelf(range(20)), have_version=-1, in_order=in_order) == 19


def test_who_asked_before_the_first_version_gets_the_newest_as_well():
    shelf = make_shelf([])
    assert version_for(shelf, have_version=-1, in_order=True) is None
    for version in (4, 5):
        shelf.publish(version, {})
    ((identity, frames),) = shelf.answers()
    assert identity == b"actor"
    assert Codec().decode([bytes(frame) for frame in frames]).version == 5
    assert shelf.answers() == []
