"""Errors of agents; without torch."""

from serl_suite.errors import SerlError

__all__ = ["BadAgent"]


class BadAgent(SerlError):
    """An agent was asked for that cannot be built; the message says why and names what can."""
