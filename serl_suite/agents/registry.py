"""Agents by name, and the few words from which an actor builds the matching policy."""

from typing import Any

import msgspec
import torch

from serl_suite.agents.agent import BadAgent
from serl_suite.agents.policy import Policy
from serl_suite.agents.ranks import ALONE, Ranks
from serl_suite.agents.rlpd import RLPD, RLPDConfig
from serl_suite.networks.weights import weights_fingerprint
from serl_suite.wire.spaces import EnvSpec

__all__ = ["AGENTS", "describe", "make_agent", "make_policy"]

AGENTS = {"rlpd": (RLPDConfig, RLPD)}
"""Name: (configuration, agent)."""


def make_agent(
    name: str,
    config: RLPDConfig,
    spec: EnvSpec,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    ranks: Ranks = ALONE,
) -> RLPD:
    """The agent of that name.

    Raises:
        BadAgent: unknown name, or a spec that the agent cannot learn from.
    """
    return _entry(name)[1](config, spec, seed=seed, device=device, ranks=ranks)


def describe(name: str, config: RLPDConfig) -> dict[str, Any]:
    """What `make_policy` needs, as plain JSON types; the learner's welcome carries it.

    Raises:
        BadEncoder: The weights of a frozen backbone are not there.
    """
    weights = weights_fingerprint(config.encoder)
    return {"name": name, "config": msgspec.to_builtins(config), "weights": weights}


def make_policy(description: dict[str, Any], spec: EnvSpec, *, seed: int) -> Policy:
    """The policy of a described agent.

    Raises:
        BadAgent: an agent or a setting that this version does not know, or other weights of a frozen backbone.
        BadEncoder: The weights of a frozen backbone are not there.
    """
    try:
        config = msgspec.convert(description["config"], _entry(description["name"])[0])
    except (KeyError, msgspec.ValidationError) as e:
        raise BadAgent(
            f"the learner describes its agent as {description}: {e}; run the same version on both sides"
        ) from e
    theirs = description.get("weights")
    if spec.image_keys and theirs != (ours := weights_fingerprint(config.encoder)):
        raise BadAgent(
            f"the backbone's weights {config.encoder.weights} are other ones on this machine ({ours}) than the "
            f"learner's ({theirs}); copy the learner's file here"
        )
    return Policy(config, spec, seed=seed)


def _entry(name: str) -> tuple[type[RLPDConfig], type[RLPD]]:
    if name not in AGENTS:
        raise BadAgent(f"no agent is called {name!r}; choose one of {', '.join(AGENTS)}")
    return AGENTS[name]
