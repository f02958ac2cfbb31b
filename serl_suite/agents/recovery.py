"""RLPD with a recovery policy that takes over where a risk critic warns (Thananjeyan et al. 2021, arXiv 2010.15920).

The risk of a violation (cost c = 1) soon, and the policy that keeps away from it:

    Q_r      = c + m gamma_s max(Q_r1'(s', a'), Q_r2'(s', a')),                        a' ~ pi(s')
    recovery = mean max(Q_r1, Q_r2)(s, pi_rec(s))
    act      : pi(s), or pi_rec(s) where max(Q_r1, Q_r2)(s, pi(s)) > eps

The task's policy is RLPD's and learns from what was executed, whoever chose it. Violations are rare: of the batch that
the risk learns from, 30 % are transitions that violate (see `risk_batch`).
"""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serl_suite.agents.agent import BadAgent
from serl_suite.agents.module_state import load_module, module_state
from serl_suite.agents.optimiser import adam_state, descend, load_adam_state, make_adam
from serl_suite.agents.policy_network import make_actor, require_states
from serl_suite.agents.rlpd import RLPD
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.data.mixing import mixed_sample
from serl_suite.data.replay import Batch, Replay
from serl_suite.networks.ensemble import EnsembleMLP
from serl_suite.wire.spaces import EnvSpec, Observation

__all__ = ["RecoveryConfig", "RecoveryRLPD", "risk_batch"]

NUM_RISK_CRITICS = 2


class RecoveryConfig(RLPDConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of RLPD, its risk critic and its recovery policy."""

    risk_discount: float = 0.5
    """gamma_s: how far ahead the risk looks."""
    risk_limit: float = 0.15
    """eps: above this risk the recovery policy acts."""
    violating_fraction: float = 0.3
    """Share of violating transitions in the batch that the risk learns from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.risk_discount < 1.0 or not 0.0 <= self.violating_fraction <= 1.0:
            raise BadAgent("risk_discount lies in [0, 1) and violating_fraction in [0, 1]")


def risk_batch(config: RecoveryConfig, everything: Replay, violating: Replay) -> Batch:
    """A batch of which `violating_fraction` are transitions with a cost, as far as there are any.

    Args:
        config: The agent's.
        everything: Every transition, with costs.
        violating: Those with a cost, with costs; fill it with `Replay.insert(..., previous=...)`.
    """
    return mixed_sample(everything, violating, config.batch_size, config.violating_fraction)


class RecoveryRLPD(RLPD):
    """RLPD that hands over to a recovery policy where it is about to violate.

    Args:
        config: Settings.
        spec: Of the environment.
        seed: Of the weights and of every draw that follows.
        device: Where it computes.

    Raises:
        BadAgent: The spec holds images.
    """

    config: RecoveryConfig

    def __init__(
        self, config: RecoveryConfig, spec: EnvSpec, *, seed: int, device: str | torch.device = "cpu"
    ) -> None:
        require_states(spec)
        super().__init__(config, spec, seed=seed, device=device)
        self.recoveries = 0
        """Actions that the recovery policy took over."""
        self.recovery = make_actor(config, self.encoder.width, spec, seed + 4).to(self.device)
        weights = torch.Generator().manual_seed(seed + 3)
        self.risk_critic = EnsembleMLP(
            NUM_RISK_CRITICS, spec.state_dim + spec.action_dim, config.hidden, 1,
            generator=weights, layer_norm=config.layer_norm,
        ).to(self.device)  # fmt: skip
        self.target_risk_critic = copy.deepcopy(self.risk_critic).requires_grad_(False)
        self._risk_parameters: list[Tensor] = list(self.risk_critic.parameters())
        self._target_risk_parameters: list[Tensor] = list(self.target_risk_critic.parameters())
        self._recovery_parameters: list[Tensor] = list(self.recovery.parameters())
        self._risk_optimiser = make_adam(self._risk_parameters, config.learning_rate)
        self._recovery_optimiser = make_adam(self._recovery_parameters, config.learning_rate)

    @torch.no_grad()
    def act(self, observation: Observation, explore: bool) -> NDArray[np.float32]:
        """The policy's action, or the recovery policy's where that one is too risky. Shape: (action_dim,)"""
        action = super().act(observation, explore)
        state = torch.from_numpy(self.spec.flatten(observation)).to(self.device)[None]
        normalised = self.encoder(None, state)
        risk = self._risk(normalised, torch.from_numpy(action).to(self.device)[None])
        if float(risk) <= self.config.risk_limit:
            return action
        self.recoveries += 1
        mean, _ = self.recovery(normalised)
        return torch.tanh(mean)[0].cpu().numpy()

    def update_risk(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the risk critic and of the recovery policy, from a batch of `risk_batch`.

        Raises:
            BadAgent: the batch carries no costs.
        """
        state, next_state = self.encoder(None, batch.state), self.encoder(None, batch.next_state)
        loss, metrics = self.risk_loss(batch, state, next_state)
        descend(self._risk_optimiser, loss, self._risk_parameters)
        with torch.no_grad():
            torch._foreach_lerp_(self._target_risk_parameters, self._risk_parameters, self.config.tau)
        loss, info = self.recovery_loss(state, self._draw_noise(batch.action))
        descend(self._recovery_optimiser, loss, self._recovery_parameters)
        return metrics | info

    def risk_loss(self, batch: Batch, state: Tensor, next_state: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared distance of the risk critics to their target, summed over both. States are normalised."""
        if batch.cost is None:
            raise BadAgent("the replay keeps no costs; make it with costs=True")
        with torch.no_grad():
            raw, _ = self.actor.draw(next_state, self._draw_noise(batch.action))
            next_q = self.target_risk_critic(torch.cat([next_state, torch.tanh(raw)], -1)).squeeze(-1).amax(0)
            violated = (batch.cost > 0.0).float()
            target = torch.addcmul(violated, batch.mask, next_q, value=self.config.risk_discount)
        q = self.risk_critic(torch.cat([state, batch.action], -1)).squeeze(-1)
        loss = (q - target).square().sum() / len(target)
        return loss, {"risk/loss": loss.detach() / NUM_RISK_CRITICS, "risk/q": q.detach().mean()}

    def recovery_loss(self, state: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The risk of what the recovery policy does. The state is normalised."""
        raw, _ = self.recovery.draw(state, noise)
        risk = self._risk(state, torch.tanh(raw)).mean()
        return risk, {"recovery/risk": risk.detach()}

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that the next update depends on."""
        return super().state_tensors() | {
            **module_state("recovery", self.recovery),
            **module_state("risk_critic", self.risk_critic),
            **module_state("target_risk_critic", self.target_risk_critic),
            **adam_state("risk_optimiser", self._risk_optimiser),
            **adam_state("recovery_optimiser", self._recovery_optimiser),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores `state_dict`, after which updates go on exactly as they would have.

        Raises:
            BadAgent: It is of an agent with other settings; nothing was changed.
        """
        super().load_state_dict(state)
        load_module("recovery", self.recovery, state)
        load_module("risk_critic", self.risk_critic, state)
        load_module("target_risk_critic", self.target_risk_critic, state)
        load_adam_state("risk_optimiser", self._risk_optimiser, state)
        load_adam_state("recovery_optimiser", self._recovery_optimiser, state)

    def _risk(self, state: Tensor, action: Tensor) -> Tensor:
        """Shape: (batch, state_dim), (batch, action_dim) -> (batch,)"""
        return self.risk_critic.frozen(torch.cat([state, action], -1)).squeeze(-1).amax(0)
