"""A bad network between arm and client: packets lost, late and out of order, from a seed."""

from typing import NamedTuple

import numpy as np

from serl_envs.twins.fci.command import Command

__all__ = ["Impairment", "Network"]


class Network(NamedTuple):
    """How bad it is."""

    loss: float = 0.0
    """Probability for each state and for each command."""
    delay_ms: int = 0
    """Of each command, whole ticks, beyond what the real network takes. The arm takes late torques, but no late
    positions or velocities."""
    jitter_ms: int = 0
    """Added to the delay: uniform between 0 and this."""
    seed: int = 0


class Impairment:
    """Loses states, and loses or holds back commands. Without impairments everything passes in its own tick."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._rng = np.random.default_rng(network.seed)
        self._clear = network.loss == 0 and network.delay_ms == 0 and network.jitter_ms == 0
        self._late: list[tuple[int, Command]] = []

    def loses(self) -> bool:
        """Draws whether the next packet is lost."""
        return self._network.loss > 0 and bool(self._rng.random() < self._network.loss)

    def passes(self, command: Command | None, tick: int) -> Command | None:
        """Takes the command that arrived before a tick, and returns the newest that is due by then."""
        if self._clear:
            return command
        if command is not None and not self.loses():
            late = self._network.delay_ms
            if self._network.jitter_ms:
                late += int(self._rng.integers(0, self._network.jitter_ms, endpoint=True))
            self._late.append((tick + late, command))
        arrived = [command for due, command in self._late if due <= tick]
        self._late = [(due, command) for due, command in self._late if due > tick]
        return max(arrived, key=lambda command: command.message_id, default=None)

    def clear(self) -> None:
        """Forgets what is on its way: a motion has ended."""
        self._late.clear()
