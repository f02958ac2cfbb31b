"""Messages about cameras: what goes in comes out, and anything else is an error and nothing worse."""

import re

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serl_suite.wire.camera_messages import (
    MAGIC,
    NEVER_S,
    Report,
    ShowPictures,
    Sight,
    Sights,
    Stamp,
    decode_answer,
    decode_request,
    encode,
    pack,
    unpack,
)
from serl_suite.wire.messages import WireError

COUNT = st.integers(0, 2**62)
STAMPS = st.builds(
    Stamp, sequence=COUNT, device_s=st.floats(allow_nan=False, allow_infinity=False), host_ns=COUNT
)
SIGHTS = st.builds(
    Sight, camera=st.text(max_size=9), stamp=STAMPS, size=st.sampled_from((0, 1, 16)), age_s=st.floats(0, NEVER_S),
    fault=st.text(max_size=9), detail=st.text(max_size=99),
)  # fmt: skip
REPORTS = st.builds(
    Report,
    stamp=st.none() | STAMPS,
    size=st.integers(0, 4096),
    fault=st.text(max_size=9),
    detail=st.text(max_size=9),
)
REQUESTS = st.builds(
    ShowPictures,
    number=st.integers(1, 2**62),
    camera=st.text(max_size=9),
    after=COUNT,
    wait_s=st.floats(0, 5),
)


@given(st.lists(SIGHTS, max_size=3), st.floats(0, 1), st.randoms(use_true_random=False))
def test_an_answer_comes_out_as_it_went_in(sights, skew_s, random):
    pictures = [random.randbytes(sight.size**2 * 3) for sight in sights]
    sent = Sights(number=7, sights=tuple(sights), skew_s=skew_s)
    got, seen = decode_answer([encode(sent), *pictures])
    assert got == sent
    assert [pixels.shape for pixels in seen] == [(sight.size, sight.size, 3) for sight in sights]
    assert [pixels.tobytes() for pixels in seen] == pictures
    if pictures:
        with pytest.raises(WireError, match="pictures instead of"):
            decode_answer([encode(sent), *pictures[1:]])
        with pytest.raises(WireError, match="are no picture of"):
            decode_answer([encode(sent), *pictures[1:], pictures[0] + b"x"])


@given(REPORTS, REQUESTS)
def test_reports_and_requests_likewise(report, request):
    size = 0 if report.stamp is None else report.size % 9
    report = msgspec.structs.replace(report, size=size)
    pixels = np.arange(size**2 * 3, dtype=np.uint64).astype(np.uint8).reshape(size, size, 3)
    got, seen = unpack(pack(report, pixels))
    assert got == report
    assert np.array_equal(seen, pixels)
    with pytest.raises(WireError):
        unpack(pack(report, pixels) + b"x")
    assert decode_request(encode(request)) == request


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(data):
    for frame in (data, MAGIC + data):
        for decode in (decode_request, unpack, lambda frame: decode_answer([frame])):
            try:
                decode(frame)
            except WireError:
                continue
    with pytest.raises(WireError):
        decode_answer([])


@pytest.mark.parametrize("field", ["age_s", "waited_s", "skew_s"])
@pytest.mark.parametrize(("value", "said"), [(np.inf, "not finite"), (np.nan, ">= 0.0"), (-1.0, ">= 0.0")])
def test_times_are_finite_and_not_negative(field, value, said):
    sight = Sight(camera="a", stamp=Stamp(), size=0, age_s=0.0, fault="", detail="")
    sent = Sights(number=1, sights=(sight,), skew_s=0.0)
    if field == "age_s":
        sent = msgspec.structs.replace(sent, sights=(msgspec.structs.replace(sight, age_s=value),))
    else:
        sent = msgspec.structs.replace(sent, **{field: value})
    with pytest.raises(WireError, match=re.escape(said)):
        decode_answer([encode(sent), b""])
