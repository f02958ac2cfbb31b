import contextlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serl_suite.wire.codec import PREFIX, Codec, EncodedStep, SchemaMismatch
from serl_suite.wire.messages import Ack, EpisodeOutcome, Evaluation, Hello, Step, Steps, Weights, WireError
from serl_suite.wire.records import SEQ, pack
from serl_suite.wire.spaces import DTYPES, ArraySpec, EnvSpec

arrays = hnp.arrays(
    dtype=st.sampled_from(sorted(DTYPES)).map(np.dtype), shape=hnp.array_shapes(min_dims=0, max_side=24)
)
steps = st.builds(
    Step,
    seq=st.integers(0, 2**40),
    episode=st.integers(0, 2**31),
    index=st.integers(0, 2**31),
    observation=st.dictionaries(st.text(min_size=1, max_size=12), arrays, max_size=4),
    action=st.none() | hnp.arrays(np.float32, 7),
    reward=st.floats(allow_nan=False),
    terminated=st.booleans(),
    success=st.none() | st.booleans(),
    source=st.sampled_from(["policy", "scripted", "human"]),
    frame_times_s=st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=2),
)


def same(a, b):
    """Equality of messages by value, bits of arrays included."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, msgspec.Struct):
        return type(a) is type(b) and all(
            same(getattr(a, f), getattr(b, f)) for f in type(a).__struct_fields__
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def over_the_wire(frames):
    return [bytes(frame) for frame in frames]


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=4))
def test_steps_survive_bit_for_bit(items):
    message = Steps(session_id="s", steps=items)
    assert same(Codec().decode(over_the_wire(Codec().encode(message))), message)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=4))
def test_steps_encoded_one_by_one_are_the_same_message(items):
    codec = Codec()
    encoded = [codec.encode_step(step) for step in items]
    assert all(
        same(codec.decode_step(EncodedStep(bytes(e.header), over_the_wire(e.buffers))), step)
        for e, step in zip(encoded, items, strict=True)
    )
    records = b"".join(pack([SEQ.pack(s.seq), *e.parts]) for s, e in zip(items, encoded, strict=True))
    assert same(codec.decode_records(records), items)
    frames = over_the_wire(codec.encode_records("s", records))
    assert same(codec.decode(frames), Steps(session_id="s", steps=items))
    for cut in (1, len(records) - 1) if items else ():
        with pytest.raises(WireError, match="damaged"):
            codec.decode([*frames[:-1], frames[-1] + records[:cut]])


def test_every_other_kind_of_message_survives():
    spec = EnvSpec(
        task="T",
        observation={"state": ArraySpec(shape=(3,), dtype="float32", low=(None, -1.0, 0.0), high=None)},
        action=ArraySpec(shape=(1,), dtype="float32", low=-1.0, high=1.0),
    )
    for message in (
        Hello(session_id="s", actor="a", spec=spec, first_seq=3),
        Ack(session_id="s", durable_seq=5, updates_owed=1.5),
        Weights(version=2, arrays={"a.0": np.ones((300, 9), np.float16), "b": np.zeros(3, np.float32)}),
        Evaluation(
            session_id="s",
            number=0,
            version=1,
            env_steps=7,
            episodes=[EpisodeOutcome(success=True, episode_return=1.0, length=9)],
        ),
    ):
        assert same(Codec().decode(over_the_wire(Codec().encode(message))), message)


def test_non_contiguous_images_are_sent_as_seen():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)[::-1, ::2]
    message = Weights(version=1, arrays={"x": image})
    assert np.array_equal(Codec().decode(over_the_wire(Codec().encode(message))).arrays["x"], image)


def test_jpeg_is_smaller_and_close_and_keeps_colours_apart():
    y, x = np.mgrid[:96, :128]
    image = np.stack([2 * x, 255 - 2 * y, np.full_like(x, 30)], axis=-1).clip(0, 255).astype(np.uint8)
    step = Step(seq=0, episode=0, index=0, observation={"wrist": image})
    frames = over_the_wire(Codec(jpeg_quality=95).encode(Steps(session_id="s", steps=[step])))
    assert sum(map(len, frames)) < image.nbytes / 4
    decoded = Codec().decode(frames).steps[0].observation["wrist"]
    assert np.abs(decoded.astype(int) - image).mean() < 3


def test_another_schema_is_named():
    frames = over_the_wire(Codec().encode(Ack(session_id="s", durable_seq=0)))
    frames[0] = frames[0][:3] + bytes([frames[0][3] + 1]) + frames[0][4:]
    with pytest.raises(SchemaMismatch, match="install the same version"):
        Codec().decode(frames)


def array_message(*description, frames=()):
    header = PREFIX + msgspec.msgpack.encode({"is": "Weights", "version": 1, "arrays": {"a": description}})
    return [header, *frames]


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"SRL"],
        [PREFIX],
        [b"GET / HTTP/1.1"],
        [PREFIX + msgspec.msgpack.encode({"is": "Nothing"})],
        [PREFIX + msgspec.msgpack.encode({"is": "Ping", "session_id": "s", "more": 1})],
        [PREFIX + msgspec.msgpack.encode({"is": "Ping", "session_id": 3})],
        [PREFIX + b"\x91" * 100_000],
        [PREFIX + bytes(5 * 1024 * 1024)],
        array_message("object", [1], 0, b"12345678"),
        array_message("float32", [2], 0, b"1234"),
        array_message("float32", [-1], 0, b"1234"),
        array_message("float32", [2**62, 2**62], 0, b""),
        array_message("float32", [1] * 40, 0, b"1234"),
        array_message("float32", [True], 0, b"1234"),
        array_message("float32", [1], 7, b"1234"),
        array_message("float32", [1], 0, None),
        array_message("float32", [1], 0, b"1234", frames=[b"1234"]),
        array_message("float32", [1], 0, 4, frames=[b"1234", b""]),
        array_message("float32", [1], 0, 4, frames=[b"12345"]),
        array_message("float32", [1], 0, 4, frames=[b"123"]),
        array_message("float32", [1], 0, 4, frames=[b"12", b"34"]),
        array_message("float32", [1], 0, 4),
        array_message("float32", [1], 0, -4, frames=[b"1234"]),
        array_message("float32", [1], 0, 0, frames=[b"1234"]),
        array_message("float32", [1], 0, True, frames=[b"1234"]),
        array_message("float32", "ab", 0, b"1234"),
        array_message("uint8", [30000, 30000, 3], 1, b"\xff\xd8"),
        array_message("uint8", [16, 16, 3], 1, b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x10\x00\x10\x03"),
        array_message("float32", [16, 16, 3], 1, b"\xff\xd8"),
        array_message("uint8", [16, 16, 3], 1, b"\x89PNG"),
        array_message(),
        array_message("float32"),
    ],
)
def test_malformed_messages_are_wire_errors(frames):
    with pytest.raises(WireError):
        Codec().decode(frames)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_messages_are_wire_errors_or_messages(data):
    step = Step(
        seq=1,
        episode=0,
        index=1,
        observation={"a": np.arange(600, dtype=np.float32), "b": np.ones((2, 2), np.uint8)},
        action=np.zeros(2, np.float32),
    )
    frames = over_the_wire(Codec().encode(Steps(session_id="s", steps=[step])))
    which = data.draw(st.integers(0, len(frames) - 1))
    frame = bytearray(frames[which])
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    frames[which] = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    with contextlib.suppress(WireError):
        assert isinstance(Codec().decode(frames), msgspec.Struct)


def test_objects_do_not_go_over_the_wire():
    with pytest.raises(WireError, match="dtype object"):
        Codec().encode(Weights(version=1, arrays={"a": np.array([object()])}))
