"""A block of updates as one CUDA graph: gather, losses, gradients, optimisers and targets are launched at once.

On a GPU an update of small networks is a few hundred kernels of microseconds each, and launching them one by one
takes ten times as long as running them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serl_suite.agents.agent import BadAgent
from serl_suite.agents.rlpd import RLPD
from serl_suite.data.replay import Batch, Replay, join

__all__ = ["UpdateGraph"]

WARM_UPS = 3
"""Before a capture, as torch asks for: libraries allocate and choose kernels in the first calls."""
AHEAD = 2
"""Blocks that may wait for the device: enough to keep it busy, and few enough to stay close to what is new."""


class _Staging:
    """Draws on their way to the device, whose host memory is free again once `copied`."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        self.host = [torch.zeros(shape, dtype=torch.int64, pin_memory=True) for shape in shapes]
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]


class UpdateGraph:
    """`updates` updates of an agent on batches of one or two replays.

    The agent's state may be saved, loaded and updated without the graph in between, as long as its updates stay a
    multiple of its `actor_period`. Batches are drawn on the host, so they are those of updates without a graph.

    Args:
        agent: On a CUDA device, at a multiple of its `actor_period`. Its updates are compiled.
        sources: Replays on that device, and how many transitions of a batch come from each; the agent's ranks divide
            that number, and learn from a share of it each.
        updates: In the block; a multiple of `actor_period`.

    Raises:
        BadAgent: The agent's device is no GPU, or the block would not repeat.
    """

    def __init__(self, agent: RLPD, sources: Sequence[tuple[Replay, int]], updates: int) -> None:
        if agent.device.type != "cuda":
            raise BadAgent(f"a CUDA graph needs a CUDA device, and the agent is on {agent.device}")
        if updates % agent.config.actor_period or agent.updates % agent.config.actor_period:
            raise BadAgent(
                f"a block of {updates} updates after {agent.updates} does not repeat: the actor learns at every "
                f"{agent.config.actor_period}th"
            )
        self.updates = updates
        self._agent, self._sources = agent, list(sources)
        batch, cameras = sum(self._shares()), len(agent.spec.image_keys)
        shapes = (updates, 2, batch), (updates, cameras, 2, batch, 2)
        self._rows, self._views = (
            torch.zeros(shape, dtype=torch.int64, device=agent.device) for shape in shapes
        )
        self._staging = [_Staging(*shapes) for _ in range(AHEAD)]
        self._turn = 0
        self._metrics: dict[str, Tensor] = {}
        agent.compile()
        self._gather = torch.compile(self._gather_batch, dynamic=False)
        self._graph = torch.cuda.CUDAGraph()
        self._capture()

    def run(self) -> dict[str, Tensor]:
        """Draws and launches the block; waits only where the device is two blocks behind.

        Returns: metrics of the last update, scalars that the next block overwrites.
        """
        staging = self._staging[self._turn]
        self._turn = (self._turn + 1) % AHEAD
        staging.copied.synchronize()
        rows, views = staging.host
        for update in range(self.updates):
            self._draw(rows[update].numpy(), views[update].numpy())
        self._rows.copy_(rows, non_blocking=True)
        self._views.copy_(views, non_blocking=True)
        staging.copied.record()
        self._graph.replay()
        self._agent.updates += self.updates
        return self._metrics

    def _draw(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> None:
        start = 0
        for (replay, count), own in zip(self._sources, self._shares(), strict=True):
            part = slice(start, start + own)
            rows[:, part], views[:, :, part] = replay.draw(count).part(self._agent.ranks.share)
            start += own

    def _shares(self) -> list[int]:
        """How many transitions of each source this process looks at."""
        return [count // self._agent.ranks.size for _, count in self._sources]

    def _capture(self) -> None:
        """Leaves the agent as it was."""
        agent, before = self._agent, self._agent.state_dict()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._block()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph.register_generator_state(agent.generator)
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):  # other threads copy meanwhile
            self._block()
        agent.load_state_dict(before)

    def _block(self) -> None:
        for update in range(self.updates):
            self._metrics |= self._agent.update(self._gather(self._rows[update], self._views[update]))

    def _gather_batch(self, rows: Tensor, views: Tensor) -> Batch:
        batches, start = [], 0
        for (replay, _), own in zip(self._sources, self._shares(), strict=True):
            part = slice(start, start + own)
            batches.append(replay.gather(rows[:, part], views[:, :, part]))
            start += own
        return join(batches)
