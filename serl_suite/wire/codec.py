"""Messages as multipart frames: a MessagePack header, then the large arrays' bytes.

Not pickle: a peer's bytes must never be able to run code. And nothing a peer writes is believed: dtype, shape
and size are checked against the buffer before an array is made over it.

A header is `MAGIC`, one byte of schema version, MessagePack. An array in it is [dtype, shape, encoding, data], where
data is the bytes themselves up to `INLINE_BYTES`, else their number: the next so many bytes of the buffers.
Steps follow their message's header as records (wire/records.py), byte for byte as they lie in the spool.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from serl_suite.wire import messages
from serl_suite.wire.messages import SCHEMA, Step, WireError
from serl_suite.wire.records import SEQ, Buffer, pack, unpack
from serl_suite.wire.spaces import DTYPES

__all__ = ["Buffer", "Codec", "EncodedStep", "SchemaMismatch"]

MAGIC = b"SRL"
PREFIX = MAGIC + bytes([SCHEMA])
INLINE_BYTES = 1024
"""Below this a frame of its own costs more than the copy into the header."""
MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_DIMENSIONS = 8
MAX_IMAGE_BYTES = 64 * 1024 * 1024
RAW, JPEG = 0, 1


class SchemaMismatch(WireError):
    """The peer runs another version of this program."""


class EncodedStep(NamedTuple):
    """A step as it lies in a spool and goes over the wire."""

    header: Buffer
    """MessagePack of the step, without prefix."""
    buffers: Sequence[Buffer]
    """Its large arrays, in the header's order."""

    @property
    def parts(self) -> list[Buffer]:
        """Header and buffers."""
        return [self.header, *self.buffers]


class _StepsFrame(messages.Message, frozen=True, tag="Steps"):
    """The header of `Steps`; the steps follow as records, as they lie in a spool."""

    session_id: str


_Header = (
    messages.Hello
    | messages.Welcome
    | messages.Refused
    | messages.HelloRequired
    | _StepsFrame
    | messages.Resend
    | messages.Ping
    | messages.Ack
    | messages.WeightsRequest
    | messages.Weights
    | messages.Evaluation
    | messages.Stop
    | messages.Bye
)


class Codec:
    """Encodes and decodes; one instance per thread.

    Args:
        jpeg_quality: (height, width, 3) uint8 arrays go as JPEG of this quality, 1..100; None: raw.
    """

    def __init__(self, jpeg_quality: int | None = None) -> None:
        self._jpeg_quality = jpeg_quality
        self._out: list[Buffer] = []
        self._in: list[Buffer] = []
        self._taken = self._at = 0
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._encode_array)
        self._decoder = msgspec.msgpack.Decoder(_Header, dec_hook=self._decode_array)
        self._step_decoder = msgspec.msgpack.Decoder(Step, dec_hook=self._decode_array)

    def encode(self, message: messages.Message) -> list[Buffer]:
        """Frames of a message. Arrays are not copied: send before they change."""
        if isinstance(message, messages.Steps):
            records = [pack([SEQ.pack(step.seq), *self.encode_step(step).parts]) for step in message.steps]
            return self.encode_records(message.session_id, b"".join(records))
        self._out = [b""]
        header = self._encoder.encode(message)
        frames, self._out = self._out, []
        frames[0] = PREFIX + header
        return frames

    def encode_step(self, step: Step) -> EncodedStep:
        """A step by itself. Arrays are not copied."""
        self._out = []
        header = self._encoder.encode(step)
        buffers, self._out = self._out, []
        return EncodedStep(header, buffers)

    def encode_records(self, session_id: str, records: Buffer) -> list[Buffer]:
        """Frames of a `Steps` message around records of steps (wire/spool.py)."""
        return [PREFIX + self._encoder.encode(_StepsFrame(session_id=session_id)), records]

    def decode(self, frames: Sequence[Buffer]) -> messages.Message:
        """The message; its arrays are read-only views of the frames.

        Raises:
            SchemaMismatch: the peer's schema is another.
            WireError: anything else that is wrong with it.
        """
        if not frames or len(frames[0]) < len(PREFIX) or frames[0][: len(MAGIC)] != MAGIC:
            raise WireError("no message of this protocol: the header lacks its magic")
        if frames[0][len(MAGIC)] != SCHEMA:
            raise SchemaMismatch(
                f"the peer speaks schema {frames[0][len(MAGIC)]}, this side {SCHEMA}; install the same version "
                "of serl-suite on both machines"
            )
        header, buffers = memoryview(frames[0])[len(PREFIX) :], frames[1:]
        message: messages.Message = self._decode(self._decoder, header, buffers)
        if isinstance(message, _StepsFrame):
            steps = [step for records in buffers for step in self.decode_records(records)]
            return messages.Steps(session_id=message.session_id, steps=steps)
        return message

    def decode_records(self, records: Buffer) -> list[Step]:
        """The steps of whole records, one after the other.

        Raises: WireError, where one is torn, damaged or no step.
        """
        view, steps, at = memoryview(records), [], 0
        while at < len(view):
            record = unpack(view, at)
            if record is None or len(record.parts) < 2:
                raise WireError(f"steps are damaged from byte {at} of {len(view)} on")
            steps.append(self.decode_step(EncodedStep(record.parts[1], record.parts[2:])))
            at = record.end
        return steps

    def decode_step(self, encoded: EncodedStep) -> Step:
        """Raises: WireError."""
        step: Step = self._decode(self._step_decoder, encoded.header, encoded.buffers)
        return step

    def _decode(self, decoder: Any, header: Buffer, buffers: Sequence[Buffer]) -> Any:  # noqa: ANN401
        if len(header) > MAX_HEADER_BYTES:
            raise WireError(f"header of {len(header)} bytes; the limit is {MAX_HEADER_BYTES}")
        self._in, self._taken, self._at = list(buffers), 0, 0
        try:
            message = decoder.decode(header)
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as e:
            raise WireError(f"undecodable header: {e}") from None
        finally:
            buffers, self._in = self._in, []
        if (self._taken != len(buffers) or self._at) and not isinstance(message, _StepsFrame):
            raise WireError(f"{len(buffers)} buffers hold more than the header describes")
        return message

    def _encode_array(self, array: object) -> list[object]:
        if not isinstance(array, np.ndarray):
            raise NotImplementedError(f"{type(array).__name__} does not go over the wire")
        dtype, shape = _NAMES.get(array.dtype), array.shape
        if dtype is None:
            raise WireError(
                f"arrays of dtype {array.dtype} do not go over the wire; use one of {sorted(DTYPES)}"
            )
        if self._jpeg_quality and dtype == "uint8" and len(shape) == 3 and shape[2] == 3 and array.size:
            self._out.append(_encode_jpeg(array, self._jpeg_quality))
            return [dtype, shape, JPEG, len(self._out[-1])]
        if array.nbytes <= INLINE_BYTES:
            return [dtype, shape, RAW, array.tobytes()]
        self._out.append(np.ascontiguousarray(array).data.cast("B"))
        return [dtype, shape, RAW, array.nbytes]

    def _decode_array(self, kind: object, value: object) -> object:
        if kind is object:
            return value
        if type(value) is not list or len(value) != 4:
            raise WireError("an array is described by something else than [dtype, shape, encoding, data]")
        name, sizes, encoding, data = value
        if type(sizes) is not list or len(sizes) > MAX_DIMENSIONS or type(encoding) is not int:
            raise WireError("an array's shape or encoding is none")
        shape = tuple(sizes)
        try:
            dtype, nbytes = _layout(name, *shape)
        except TypeError:  # not even hashable
            raise WireError("an array's dtype or shape is none") from None
        buffer: Buffer
        if type(data) is bytes:
            buffer = data
        elif type(data) is int:
            buffer = self._take(data)
        else:
            raise WireError("an array's data are neither bytes nor a size")
        if encoding == JPEG:
            return _decode_jpeg(buffer, dtype, shape)
        if encoding != RAW:
            raise WireError(f"unknown array encoding {encoding}")
        if nbytes != len(buffer):
            raise WireError(f"{name} {shape} takes {nbytes} bytes, {len(buffer)} came")
        return np.ndarray(shape, dtype, buffer)

    def _take(self, size: int) -> Buffer:
        """The next bytes of the buffers; an array lies within one of them."""
        if self._taken == len(self._in) or not 0 < size <= len(self._in[self._taken]) - self._at:
            raise WireError("the header describes more than came with it")
        start, frame = self._at, self._in[self._taken]
        self._at = start + size
        if self._at == len(frame):
            self._taken, self._at = self._taken + 1, 0
        return frame[start : start + size]


_NUMPY_DTYPES = {name: np.dtype(name) for name in DTYPES}
_NAMES = {dtype: name for name, dtype in _NUMPY_DTYPES.items()}


@lru_cache(maxsize=256, typed=True)
def _layout(name: object, *shape: object) -> tuple[np.dtype[Any], int]:
    """(dtype, bytes) of an array that a header describes.

    Raises: WireError.
    """
    if not isinstance(name, str) or name not in DTYPES:
        raise WireError("an array's dtype is none that goes over the wire")
    dtype = _NUMPY_DTYPES[name]
    nbytes = dtype.itemsize
    for n in shape:
        if type(n) is not int or not 0 <= n < 2**31:
            raise WireError("an array's shape is out of bounds")
        nbytes *= n
    return dtype, nbytes


def _encode_jpeg(image: npt.NDArray[Any], quality: int) -> bytes:
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not ok:
        raise WireError(f"OpenCV could not encode an image {image.shape} as JPEG")
    return data.tobytes()


def _decode_jpeg(buffer: Buffer, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or shape[0] * shape[1] * 3 > MAX_IMAGE_BYTES:
        raise WireError(f"a JPEG declared as {shape} {dtype}")
    if _jpeg_size(buffer) != (shape[0], shape[1]):
        raise WireError(f"a JPEG declared as {shape} holds another size or is damaged")
    try:
        image = cv2.imdecode(np.frombuffer(buffer, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as e:
        raise WireError(f"OpenCV could not decode a JPEG: {e}") from None
    if image is None or image.shape != shape:
        raise WireError("a JPEG could not be decoded")
    image.flags.writeable = False
    return np.asarray(image)


def _jpeg_size(buffer: Buffer) -> tuple[int, int] | None:
    """(height, width) from a JPEG's frame header (ITU T.81, B.2.2), before a decoder allocates for it."""
    data = bytes(buffer[:65536])
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = struct.unpack_from(">BH", data, at + 1)
        if 0xC0 <= marker <= 0xC2:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        at += 2 + length
    return None
