"""How a learner pays the updates that it owes: one by one on the host, in CUDA graphs on a GPU."""

import logging

from torch import Tensor

from serl_suite.agents.agent import Agent
from serl_suite.agents.ranks import ALONE, Ranks
from serl_suite.agents.rlpd import RLPD
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.agents.update_graph import UpdateGraph
from serl_suite.nodes.experience import Experience

__all__ = ["Updates"]

log = logging.getLogger(__name__)


class Updates:
    """Updates of one agent.

    Args:
        agent: Ready to learn.
        experience: What it learns from.
        config: The agent's.
        ranks: The processes that learn with it.
    """

    def __init__(
        self, agent: Agent, experience: Experience, config: RLPDConfig, ranks: Ranks = ALONE
    ) -> None:
        self._agent, self._experience = agent, experience
        self._batch_size, self._demo_fraction = config.batch_size, config.demo_fraction
        self._share = ranks.share
        self._graph: UpdateGraph | None = None
        self._split: tuple[int, int] | None = None
        """Of the graph's batches: from online steps, from demonstrations."""

    @property
    def next(self) -> int:
        """How many `run` will do: as many as the actor's period on a GPU, else one."""
        agent = self._agent
        if not isinstance(agent, RLPD) or agent.device.type != "cuda":
            return 1
        return 1 if agent.updates % agent.config.actor_period else agent.config.actor_period

    def run(self) -> dict[str, Tensor]:
        """Does `next` updates. Returns: metrics of the last one, scalars on the device."""
        if self.next == 1:
            batch = self._experience.sample(self._batch_size, self._demo_fraction, self._share)
            return self._agent.update(batch)
        return self._current_graph().run()

    def _current_graph(self) -> UpdateGraph:
        """Captured anew where demonstrations, or online steps, came to what had none."""
        experience = self._experience
        split = experience.split(self._batch_size, self._demo_fraction)
        if self._graph is None or split != self._split:
            assert isinstance(self._agent, RLPD)
            log.info("compiling the updates for %s; the first time takes up to a minute", self._agent.device)
            sources = [
                (replay, n)
                for replay, n in zip((experience.online, experience.demos), split, strict=True)
                if n
            ]
            self._graph, self._split = UpdateGraph(self._agent, sources, self.next), split
        return self._graph
