"""No torn read, no lock, newest only."""

import multiprocessing
import time
from typing import Annotated, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from serl_servers.franka.mailbox import Floats, Integers, Mailbox, Text, make_record, read_text, write_text

WRITING_S = 2.0


class Sample(NamedTuple):
    number: Annotated[Integers, 1]
    values: Annotated[Floats, 120]
    matrix: Annotated[Floats, 6, 7]
    text: Annotated[Text, 13]


def mailbox_and_record(fd=None):
    buffer, record = make_record(Sample)
    return Mailbox(buffer.size, fd), buffer, record


def write_flat_out(fd):
    mailbox, buffer, record = mailbox_and_record(fd)
    end, number = time.monotonic() + WRITING_S, 0
    while time.monotonic() < end:
        number += 1
        record.number[0] = number
        record.values[:] = record.matrix[:] = number
        mailbox.write(buffer)
    record.number[0] = -1
    mailbox.write(buffer)


def test_two_processes_flat_out_never_see_a_torn_record():
    mailbox, buffer, record = mailbox_and_record()
    # forked, so that it inherits the descriptor
    writer = multiprocessing.get_context("fork").Process(target=write_flat_out, args=(mailbox.fd,))
    writer.start()
    last = seen = 0
    deadline = time.monotonic() + 4 * WRITING_S
    while record.number[0] != -1 and time.monotonic() < deadline:
        if mailbox.read(buffer) and record.number[0] != -1:
            assert (record.values == record.number[0]).all()
            assert (record.matrix == record.number[0]).all()
            assert record.number[0] > last
            last, seen = int(record.number[0]), seen + 1
    writer.join()
    assert record.number[0] == -1, "the last record never came"
    assert seen > 1000


@settings(deadline=None)
@given(st.lists(st.sampled_from(["write", "read"]), max_size=60))
def test_a_reader_gets_the_newest_once(steps):
    writer, out, sent = mailbox_and_record()
    reader, into, got = mailbox_and_record(writer.fd)
    written = had = 0
    for step in steps:
        if step == "write":
            written += 1
            sent.values[:] = written
            writer.write(out)
        else:
            assert reader.read(into) == (written > had)
            had = written
            assert (got.values == written).all()
    writer.close()


@given(st.integers(0, 120 * 8 - 1))
def test_a_writer_that_died_in_the_middle_leaves_the_record_before(cut):
    writer, out, sent = mailbox_and_record()
    reader, into, got = mailbox_and_record(writer.fd)
    sent.values[:] = 1.0
    writer.write(out)
    # the same steps as in `write`, up to a byte in the middle of the payload
    sent.values[:] = 2.0
    slot = writer._payloads[2]
    slot[:cut] = out[:cut]
    writer._numbers[2][0] = 2
    assert reader.read(into)
    assert (got.values == 1.0).all()
    writer._newest[0] = 2  # even where the order of the stores was lost on the way, the checksum tells
    assert not reader.read(into)
    assert reader.torn > 0
    assert (got.values == 1.0).all()
    writer.close()


def test_text_that_is_too_long_is_cut():
    _, _, record = mailbox_and_record()
    write_text(record.text, "stale_setpoint and more")
    assert read_text(record.text) == "stale_setpoin"
    write_text(record.text, "")
    assert read_text(record.text) == ""
    assert np.all(record.values == 0.0), "a neighbour was overwritten"
