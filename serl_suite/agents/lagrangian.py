"""RLPD under a constraint on a cost, by a Lagrange multiplier (as RCPO, Tessler et al. 2019, arXiv 1805.11074).

Beside the reward's critics of RLPD there are two of the cost, and the policy weighs one against the other:

    y_c        = c + gamma m max(Q_c1'(s', a'), Q_c2'(s', a')),                        a' ~ pi(s')
    actor      = mean (alpha log pi(a|s) - Q(s, a) + lambda max(Q_c1, Q_c2)(s, a)) / (1 + lambda)
    multiplier = log lambda raised while mean max(Q_c1, Q_c2)(s, pi(s)) > limit, else lowered; ten times slower

`limit` is what the discounted cost from any state on may be in the mean.
"""

import copy

import torch
from torch import Tensor

from serl_suite.agents.agent import BadAgent
from serl_suite.agents.module_state import load_module, module_state
from serl_suite.agents.optimiser import adam_state, descend, load_adam_state, make_adam
from serl_suite.agents.policy_network import require_states
from serl_suite.agents.rlpd import RLPD
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.data.replay import Batch
from serl_suite.networks.ensemble import EnsembleMLP
from serl_suite.networks.gaussian import log_density
from serl_suite.wire.spaces import EnvSpec

__all__ = ["LagrangianConfig", "LagrangianRLPD"]

NUM_COST_CRITICS = 2


class LagrangianConfig(RLPDConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of RLPD and of its constraint."""

    cost_limit: float = 0.1
    """Discounted cost that the policy may expect from a state on, in the mean over the batch."""
    initial_multiplier: float = 0.1
    """lambda at the start."""
    multiplier_pace: float = 0.1
    """Learning rate of log lambda, as a share of the policy's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.initial_multiplier, self.multiplier_pace) <= 0 or self.cost_limit < 0:
            raise BadAgent("initial_multiplier and multiplier_pace are positive, cost_limit is not negative")


class LagrangianRLPD(RLPD):
    """RLPD whose policy keeps an expected cost below a limit; its batches carry costs.

    Args:
        config: Settings.
        spec: Of the environment.
        seed: Of the weights and of every draw that follows.
        device: Where it computes.

    Raises:
        BadAgent: The spec holds images.
    """

    config: LagrangianConfig

    def __init__(
        self, config: LagrangianConfig, spec: EnvSpec, *, seed: int, device: str | torch.device = "cpu"
    ) -> None:
        require_states(spec)
        super().__init__(config, spec, seed=seed, device=device)
        weights = torch.Generator().manual_seed(seed + 3)
        self.cost_critic = EnsembleMLP(
            NUM_COST_CRITICS, spec.state_dim + spec.action_dim, config.hidden, 1,
            generator=weights, layer_norm=config.layer_norm,
        ).to(self.device)  # fmt: skip
        self.target_cost_critic = copy.deepcopy(self.cost_critic).requires_grad_(False)
        self.log_multiplier = (
            torch.tensor(config.initial_multiplier, device=self.device).log().requires_grad_()
        )
        self._cost_parameters: list[Tensor] = list(self.cost_critic.parameters())
        self._target_cost_parameters: list[Tensor] = list(self.target_cost_critic.parameters())
        self._cost_optimiser = make_adam(self._cost_parameters, config.learning_rate)
        self._multiplier_optimiser = make_adam(
            [self.log_multiplier], config.multiplier_pace * config.learning_rate
        )

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """As RLPD's, after an update of the cost's critics.

        Raises:
            BadAgent: the batch carries no costs.
        """
        loss, metrics = self.cost_loss(batch)
        descend(self._cost_optimiser, loss, self._cost_parameters)
        with torch.no_grad():
            torch._foreach_lerp_(self._target_cost_parameters, self._cost_parameters, self.config.tau)
        return metrics | super().update(batch)

    def cost_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared distance of the cost's critics to their target, summed over both."""
        if batch.cost is None:
            raise BadAgent("the replay keeps no costs; make it with costs=True")
        state, next_state = self.encoder(None, batch.state), self.encoder(None, batch.next_state)
        with torch.no_grad():
            raw, _ = self.actor.draw(next_state, self._draw_noise(batch.action))
            next_q = self.target_cost_critic(torch.cat([next_state, torch.tanh(raw)], -1)).squeeze(-1).amax(0)
            target = torch.addcmul(batch.cost, batch.mask, next_q, value=self.config.discount)
        q = self.cost_critic(torch.cat([state, batch.action], -1)).squeeze(-1)
        loss = (q - target).square().sum() / len(target)
        return loss, {"cost/loss": loss.detach() / NUM_COST_CRITICS, "cost/q": q.detach().mean()}

    def policy_loss(self, latent: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Policy loss plus temperature loss, and a step of the multiplier. Shapes: (batch, width),
        (batch, action_dim)"""
        raw, log_std = self.actor.draw(latent, noise)
        state_action = torch.cat([latent, torch.tanh(raw)], -1)
        q = self.critic.frozen(state_action).squeeze(-1).mean(0)
        cost = self.cost_critic.frozen(state_action).squeeze(-1).amax(0)
        temperature, entropy = self.log_temperature.exp(), -log_density(raw, log_std, noise).mean()
        multiplier = self.log_multiplier.exp().detach()
        gain = (q - multiplier * cost).mean() / (1.0 + multiplier)
        policy_loss = -(temperature.detach() * entropy) - gain
        temperature_loss = temperature * (entropy.detach() - self.target_entropy)
        multiplier_loss = -self.log_multiplier * (cost.detach().mean() - self.config.cost_limit)
        descend(self._multiplier_optimiser, multiplier_loss, [self.log_multiplier])
        return policy_loss + temperature_loss, {
            "actor/loss": policy_loss.detach(),
            "actor/entropy": entropy.detach(),
            "actor/q": q.detach().mean(),
            "actor/cost": cost.detach().mean(),
            "actor/multiplier": multiplier,
            "actor/temperature": temperature.detach(),
        }

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that the next update depends on."""
        return super().state_tensors() | {
            **module_state("cost_critic", self.cost_critic),
            **module_state("target_cost_critic", self.target_cost_critic),
            **adam_state("cost_optimiser", self._cost_optimiser),
            **adam_state("multiplier_optimiser", self._multiplier_optimiser),
            "log_multiplier": self.log_multiplier,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores `state_dict`, after which updates go on exactly as they would have.

        Raises:
            BadAgent: It is of an agent with other settings; nothing was changed.
        """
        super().load_state_dict(state)
        load_module("cost_critic", self.cost_critic, state)
        load_module("target_cost_critic", self.target_cost_critic, state)
        load_adam_state("cost_optimiser", self._cost_optimiser, state)
        load_adam_state("multiplier_optimiser", self._multiplier_optimiser, state)
        with torch.no_grad():
            self.log_multiplier.copy_(state["log_multiplier"])
