"""What the first process of a learner tells the others: whatever it does to its agent and replays, in that order.

A message is a sequence of records (wire/records.py), an order each: MessagePack, and what belongs to it as buffers.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from serl_suite.nodes.config import TrainConfig
from serl_suite.nodes.group import Group
from serl_suite.wire.codec import Codec, EncodedStep
from serl_suite.wire.messages import Step
from serl_suite.wire.records import Buffer, pack, scan
from serl_suite.wire.spaces import EnvSpec

__all__ = ["Begin", "Fit", "Insert", "Load", "Order", "Orders", "Update", "decode_step", "receive_orders"]

MOST_BYTES = 16 * 1024 * 1024
"""Orders are sent with the next update, or once they are as many as this."""


class _Order(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class Begin(_Order, frozen=True, kw_only=True):
    """Make an agent and empty replays."""

    config: TrainConfig
    spec: EnvSpec
    demonstrated: int
    """Steps of demonstrations that will come."""


class Insert(_Order, frozen=True, kw_only=True):
    """Take a step; encoded, it follows."""

    session_id: str
    into: Literal["online", "demos"]


class Fit(_Order, frozen=True, kw_only=True):
    """Set the state statistics."""


class Load(_Order, frozen=True, kw_only=True):
    """Take up a checkpoint; the agent's tensors follow, as safetensors."""

    online_rng: str
    demos_rng: str


class Update(_Order, frozen=True, kw_only=True):
    """Do the next updates."""


Order = Begin | Insert | Fit | Load | Update

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Order)


class Orders:
    """The first process's end.

    Args:
        group: The others are listening.
    """

    def __init__(self, group: Group) -> None:
        self._group, self._codec = group, Codec()
        self._waiting = bytearray()

    def put(self, order: Order, *buffers: Buffer) -> None:
        """One more order."""
        self._waiting += pack([_encoder.encode(order), *buffers])
        if len(self._waiting) >= MOST_BYTES:
            self.send()

    def insert(self, session_id: str, step: Step, into: Literal["online", "demos"]) -> None:
        """One more step."""
        self.put(Insert(session_id=session_id, into=into), *self._codec.encode_step(step).parts)

    def send(self) -> None:
        """All of them, now."""
        if self._waiting:
            self._group.send(self._waiting)
            self._waiting = bytearray()


def receive_orders(group: Group) -> Iterator[tuple[Order, list[memoryview]]]:
    """The orders as they come, each with its buffers, until training is over; for the other processes."""
    while message := group.receive():
        for record in scan(message):
            yield _decoder.decode(record.parts[0]), record.parts[1:]


def decode_step(codec: Codec, parts: list[memoryview]) -> Step:
    """What `Insert` brought."""
    return codec.decode_step(EncodedStep(parts[0], parts[1:]))
