"""Tensors as they were at one moment, brought to the host while the device goes on."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["Snapshot"]

WORD = torch.int32
"""What is copied; every number on a device takes one of them or two."""


class Snapshot:
    """A copy of tensors, some of which may be on a CUDA device.

    Those are copied there into one piece, in the order of the current stream, so whatever is launched next may change
    them; a stream of its own then brings the piece to pinned memory. The first of its size takes some milliseconds to
    get that memory, which is used again once a snapshot is gone.

    Args:
        tensors: By name; on a device, of 4 or 8 bytes an element.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        widest_first = sorted(
            tensors, key=lambda name: -tensors[name].element_size()
        )  # so that each lies aligned
        there = {name: tensors[name].detach() for name in widest_first if tensors[name].is_cuda}
        self._here = {name: x.detach().clone() for name, x in tensors.items() if name not in there}
        self._order = list(tensors)
        self._layout = [(name, tensor.shape, tensor.dtype) for name, tensor in there.items()]
        self._arrived: torch.cuda.Event | None = None
        if there:
            self._send(torch.cat([tensor.reshape(-1).view(WORD) for tensor in there.values()]))

    @property
    def is_ready(self) -> bool:
        """Whether `tensors` would not wait."""
        return self._arrived is None or bool(self._arrived.query())  # type: ignore[no-untyped-call]

    def tensors(self) -> dict[str, Tensor]:
        """All of them on the host, in the order in which they came."""
        if self._arrived is not None:
            self._arrived.synchronize()
            start = 0
            for name, shape, dtype in self._layout:
                end = start + shape.numel() * dtype.itemsize // WORD.itemsize
                # A copy: 8-byte elements cannot be viewed where an odd number of words comes before them.
                self._here[name] = self._words[start:end].clone().view(dtype).view(shape)
                start = end
            self._arrived = None
        return {name: self._here[name] for name in self._order}

    def _send(self, words: Tensor) -> None:
        self._words = torch.empty(len(words), dtype=WORD, pin_memory=True)
        stream = _side_stream(words.device)
        stream.wait_stream(torch.cuda.current_stream(words.device))
        with torch.cuda.stream(stream):
            self._words.copy_(words, non_blocking=True)
        words.record_stream(stream)
        self._arrived = stream.record_event()


_streams: dict[torch.device, torch.cuda.Stream] = {}


def _side_stream(device: torch.device) -> torch.cuda.Stream:
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _streams[device]
