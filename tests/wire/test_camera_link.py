"""The link between a camera's process and its server: whole messages, however they come."""

import socket

import numpy as np
import pytest

from serl_suite.wire.camera_link import LENGTH_BYTES, LinkClosed, ReportLink
from serl_suite.wire.camera_messages import Report, Stamp, pack
from serl_suite.wire.messages import WireError


@pytest.fixture
def ends():
    one, other = socket.socketpair()
    link = ReportLink(other)
    yield one, link
    one.close()
    link.close()


def message(number, size=16):
    pixels = np.full((size, size, 3), number, np.uint8)
    body = pack(Report(stamp=Stamp(sequence=number), size=size), pixels)
    return len(body).to_bytes(LENGTH_BYTES) + body


def test_a_message_in_pieces_is_waited_for_by_nobody(ends):
    one, link = ends
    data = message(1) + message(2) + message(3)
    got = []
    for start in range(0, len(data), 100):
        one.sendall(data[start : start + 100])
        got += [
            (report.stamp.sequence, int(pixels.min()), int(pixels.max())) for report, pixels in link.receive()
        ]
        assert len(got) == min(3, (start + 100) * 3 // len(data))
    assert got == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
    assert not link.has_some(0.0)


def test_what_came_before_the_end_is_still_seen(ends):
    one, link = ends
    one.sendall(message(1) + message(2)[:50])
    one.close()
    received = link.receive()
    assert next(received)[0].stamp.sequence == 1
    with pytest.raises(LinkClosed):
        next(received)
    with pytest.raises(LinkClosed):
        link.send(Report(fault="black"))


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x05hello", b"\x00\x00\x00\x00"])
def test_anything_else_is_refused(ends, data):
    one, link = ends
    one.sendall(data)
    with pytest.raises(WireError):
        list(link.receive())
