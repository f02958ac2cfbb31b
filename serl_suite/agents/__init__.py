"""Algorithms, one file each, and what surrounds them: policies for actors, checkpoints, a registry."""

from serl_suite.agents.agent import Agent, BadAgent
from serl_suite.agents.checkpoint import BadCheckpoint, load_checkpoint, save_checkpoint
from serl_suite.agents.policy import Policy
from serl_suite.agents.registry import AGENTS, describe, make_agent, make_policy
from serl_suite.agents.rlpd import RLPD, RLPDConfig

__all__ = [
    "AGENTS", "RLPD", "Agent", "BadAgent", "BadCheckpoint", "Policy", "RLPDConfig", "describe",
    "load_checkpoint", "make_agent", "make_policy", "save_checkpoint",
]  # fmt: skip
