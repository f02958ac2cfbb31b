"""A block of updates as one CUDA graph: gather, losses, gradients, optimisers and targets are launched at once.

On a GPU an update of small networks is a few hundred kernels of microseconds each, and launching them one by one
takes ten times as long as running them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from serl_suite.agents.agent import BadAgent
from serl_suite.agents.block_inputs import BlockInputs, DrawnRows, GatheredBatches
from serl_suite.agents.rlpd import RLPD
from serl_suite.data.replay import Replay

__all__ = ["UpdateGraph"]

WARM_UPS = 3
"""Before a capture, as torch asks for: libraries allocate and choose kernels in the first calls."""


class UpdateGraph:
    """`updates` updates of an agent on batches of one or two replays.

    The agent's state may be saved, loaded and updated without the graph in between, as long as its updates stay a
    multiple of its `actor_period`. Batches are drawn on the host, so they are those of updates without a graph.

    Args:
        agent: On a CUDA device, at a multiple of its `actor_period`. Its updates are compiled.
        sources: Replays, all on that device or all on the host, and how many transitions of a batch come from each; the
            agent's ranks divide that number, and learn from a share of it each.
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
        self._agent = agent
        inputs = DrawnRows if sources[0][0].device.type == "cuda" else GatheredBatches
        self._inputs: BlockInputs = inputs(list(sources), updates, agent.device, agent.ranks)
        self._metrics: dict[str, Tensor] = {}
        agent.compile()
        self._graph = torch.cuda.CUDAGraph()
        self._capture()

    def run(self) -> dict[str, Tensor]:
        """Draws and launches the block; waits only where the device is some blocks behind, or the host with gathering.

        Returns: metrics of the last update, scalars that the next block overwrites.
        """
        self._inputs.load()
        self._graph.replay()
        self._agent.updates += self.updates
        return self._metrics

    def settle(self) -> None:
        """Returns once nothing reads the replays; to be called before they change."""
        self._inputs.settle()

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
            self._metrics |= self._agent.update(self._inputs.batch(update))
