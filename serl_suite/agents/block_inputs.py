"""How the batches of a block of updates reach a CUDA device, for a graph whose inputs stay where they are."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

import torch
from torch import Tensor

from serl_suite.agents.ranks import Ranks
from serl_suite.data.mixing import join
from serl_suite.data.replay import Batch, Draw, Replay

__all__ = ["BlockInputs", "DrawnRows", "GatheredBatches", "each"]

Sources = Sequence[tuple[Replay, int]]
AHEAD_OF_PICTURES, AHEAD = 2, 16
"""Blocks that may wait for the device: enough to keep it busy for some 10 ms in which the host does other things, and
few enough to stay close to what is new. Blocks that look at pictures take as long each; others take a millisecond."""


class BlockInputs(Protocol):
    """What an `UpdateGraph` learns from."""

    def load(self) -> None:
        """Puts the next block's inputs in their place, in the order of the current stream."""

    def batch(self, update: int) -> Batch:
        """This process's share of an update's batch; only operations on the device."""

    def settle(self) -> None:
        """Returns once nothing reads the replays; to be called before they change."""


class _Staging:
    """Draws on their way to the device, whose host memory is free again once `copied`."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        self.host = [torch.zeros(shape, dtype=torch.int64, pin_memory=True) for shape in shapes]
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]


class DrawnRows:
    """For replays on the device: which rows were drawn is all that crosses, and the block itself gathers them.

    Args:
        sources: Replays, and how many transitions of a batch come from each.
        updates: In the block.
        device: Where it computes, and the replays are.
        ranks: The processes that share the batches; they divide each source's transitions.
    """

    def __init__(self, sources: Sources, updates: int, device: torch.device, ranks: Ranks) -> None:
        self._sources, self._updates, self._ranks = sources, updates, ranks
        self._parts = _parts(sources, ranks)
        replay = sources[0][0]
        self._ahead = AHEAD_OF_PICTURES if replay.spec.image_keys and not replay.keeps_features else AHEAD
        batch, cameras = self._parts[-1].stop, len(replay.spec.image_keys)
        shapes = (updates, 2, batch), (updates, cameras, 2, batch, 2)
        self._rows, self._views = (torch.zeros(shape, dtype=torch.int64, device=device) for shape in shapes)
        self._staging = [_Staging(*shapes) for _ in range(self._ahead)]
        self._turn = 0
        self._gather = torch.compile(self._gather_batch, dynamic=False)

    def load(self) -> None:
        """Draws; waits only where the device is too many blocks behind."""
        staging = self._staging[self._turn]
        self._turn = (self._turn + 1) % self._ahead
        staging.copied.synchronize()
        rows, views = staging.host
        for update in range(self._updates):
            for (replay, count), part in zip(self._sources, self._parts, strict=True):
                draw = replay.draw(count).part(self._ranks.share)
                rows[update].numpy()[:, part], views[update].numpy()[:, :, part] = draw
        self._rows.copy_(rows, non_blocking=True)
        self._views.copy_(views, non_blocking=True)
        staging.copied.record()

    def batch(self, update: int) -> Batch:
        """Gathers it."""
        batch: Batch = self._gather(self._rows[update], self._views[update])
        return batch

    def settle(self) -> None:
        """The device reads in the order in which it is told to write."""

    def _gather_batch(self, rows: Tensor, views: Tensor) -> Batch:
        return join(
            [
                replay.gather(rows[:, part], views[:, :, part])
                for (replay, _), part in zip(self._sources, self._parts, strict=True)
            ]
        )


class GatheredBatches:
    """For replays in host memory: a thread gathers the next block's batches while the device is at this one's.

    They go through pinned memory and a stream of their own to the device, and from there to their place once the block
    before is done. What is drawn is drawn in the caller's thread, a block ahead.

    Args:
        sources, updates, device, ranks: As of `DrawnRows`; the replays are on the host.
    """

    def __init__(self, sources: Sources, updates: int, device: torch.device, ranks: Ranks) -> None:
        self._sources, self._updates, self._ranks = sources, updates, ranks
        self._parts = _parts(sources, ranks)
        replay, cameras = sources[0][0], len(sources[0][0].spec.image_keys)
        first = torch.zeros(2, 1, dtype=torch.int64), torch.zeros(cameras, 2, 1, 2, dtype=torch.int64)
        one, shape = replay.gather(*first)._replace(cost=None), (updates, self._parts[-1].stop)
        self._pinned = each(lambda x: x.new_zeros(*shape, *x.shape[1:], pin_memory=True), one)
        self._ahead, self._inputs = (
            each(lambda x: x.new_zeros(*shape, *x.shape[1:], device=device), one) for _ in range(2)
        )
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._arrived, self._taken = torch.cuda.Event(), torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gather")
        self._gathering: Future[None] | None = None

    def load(self) -> None:
        """Takes what was gathered, and begins with the next."""
        gathering = self._gathering or self._begin()
        gathering.result()
        torch.cuda.current_stream().wait_event(self._arrived)
        each(lambda to, x: to.copy_(x), self._inputs, self._ahead)
        self._taken.record()
        self._gathering = self._begin()

    def batch(self, update: int) -> Batch:
        """It is there."""
        return each(lambda x: x[update], self._inputs)

    def settle(self) -> None:
        """Waits for the thread."""
        if self._gathering is not None:
            wait([self._gathering])

    def _begin(self) -> "Future[None]":
        draws = [
            [replay.draw(count).part(self._ranks.share) for replay, count in self._sources]
            for _ in range(self._updates)
        ]
        return self._thread.submit(self._gather, draws)

    def _gather(self, draws: list[list[Draw]]) -> None:
        self._arrived.synchronize()  # the pinned memory is free again
        for update, of_sources in enumerate(draws):
            for (replay, _), part, draw in zip(self._sources, self._parts, of_sources, strict=True):
                into = each(lambda x: x[update, part], self._pinned)  # noqa: B023
                rows, views = (torch.from_numpy(x) for x in draw)
                gathered = replay.gather(rows, views, into)._replace(cost=None)
                each(lambda to, x: to if to is x else to.copy_(x), into, gathered)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._taken)
            each(lambda to, x: to.copy_(x, non_blocking=True), self._ahead, self._pinned)
            self._arrived.record(self._stream)


def each(function: Callable[..., Tensor], *batches: Batch) -> Batch:
    """A batch of what the function makes of the batches' tensors."""
    fields: list[Any] = []
    for values in zip(*batches, strict=True):
        if isinstance(values[0], dict):
            fields.append({key: function(*(value[key] for value in values)) for key in values[0]})
        else:
            fields.append(None if values[0] is None else function(*values))
    return Batch(*fields)


def _parts(sources: Sources, ranks: Ranks) -> list[slice]:
    """Where each source's share of a batch is in a process's."""
    parts, start = [], 0
    for _, count in sources:
        parts.append(slice(start, start + count // ranks.size))
        start = parts[-1].stop
    return parts
