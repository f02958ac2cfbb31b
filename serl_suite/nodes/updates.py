"""How a learner pays the updates that it owes: one by one on the host, in CUDA graphs on a GPU."""

import gc
import logging
import sys

from torch import Tensor

from serl_suite.agents.block_inputs import each
from serl_suite.agents.rlpd import RLPD
from serl_suite.agents.snapshot import Snapshot
from serl_suite.agents.update_graph import UpdateGraph
from serl_suite.nodes.experience import Experience

__all__ = ["Updates"]

log = logging.getLogger(__name__)

SWITCH_S = 1e-4
"""Python's own 5 ms are several blocks long: each time that a block's launch has waited for the device, another thread
that is at work in Python may go on for so long."""


class Updates:
    """Updates of one agent.

    Args:
        agent: Ready to learn.
        experience: What it learns from.
    """

    def __init__(self, agent: RLPD, experience: Experience) -> None:
        self._agent, self._experience = agent, experience
        self._batch_size, self._demo_fraction = agent.config.batch_size, agent.config.demo_fraction
        self._graph: UpdateGraph | None = None
        self._split: tuple[int, int] | None = None
        """Of the graph's batches: from online steps, from demonstrations."""

    @property
    def next(self) -> int:
        """How many `run` will do: as many as the actor's period in a graph, else one."""
        return self._agent.config.actor_period if self._in_a_graph else 1

    @property
    def _in_a_graph(self) -> bool:
        """On a GPU, but for what is left of a period begun elsewhere."""
        agent = self._agent
        return agent.device.type == "cuda" and agent.updates % agent.config.actor_period == 0

    def run(self) -> dict[str, Tensor]:
        """Does `next` updates. Returns: metrics of the last one, scalars on the device."""
        if self._in_a_graph:
            return self._current_graph().run()
        batch = self._experience.sample(self._batch_size, self._demo_fraction, self._agent.ranks.share)
        return self._agent.update(each(lambda x: x.to(self._agent.device), batch))

    def settle(self) -> None:
        """Returns once nothing reads the replays; to be called before they change."""
        if self._graph is not None:
            self._graph.settle()

    def _current_graph(self) -> UpdateGraph:
        """Captured anew where demonstrations, or online steps, came to what had none."""
        experience = self._experience
        split = experience.split(self._batch_size, self._demo_fraction)
        if self._graph is None or split != self._split:
            log.info("compiling the updates for %s; the first time takes up to a minute", self._agent.device)
            self.settle()
            replays = (experience.online, experience.demos)
            sources = [(replay, n) for replay, n in zip(replays, split, strict=True) if n]
            self._graph, self._split = UpdateGraph(self._agent, sources, self.next), split
            _be_undisturbed()
            for tensors in (self._agent.policy_tensors(), self._agent.state_tensors()):
                Snapshot(tensors).tensors()  # later ones find their memory: to reserve it takes 50 ms
        return self._graph


def _be_undisturbed() -> None:
    """From now on the journal, the socket and the garbage collection hold the updates up as little as they can."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()  # the compiler leaves a million objects, which no collection is to look through again
