"""RLPD: off-policy learning with prior data (Ball et al. 2023, arXiv 2302.02948).

Soft actor-critic with an ensemble of LayerNorm critics, a target from the minimum over a random subset of them,
many updates per environment step and batches of which half are demonstrations:

    y      = r + gamma m (min over k in subset of Q'_k(s', a') - [alpha log pi(a'|s')]),   a' ~ pi(s')
    critic = sum over k of mean (Q_k(s, a) - y)^2
    actor  = mean (alpha log pi(a|s) - mean over k of Q_k(s, a)),                          a ~ pi(s)
    alpha  = softening weight, moved until the policy's entropy meets its target

The term in brackets (`backup_entropy`) is off for sparse rewards.
"""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serl_suite.agents.agent import BadAgent
from serl_suite.agents.module_state import load_module, module_state
from serl_suite.agents.optimiser import adam_state, compiled_step, differentiate, load_adam_state, make_adam
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.data.replay import Batch
from serl_suite.networks import EnsembleMLP, TanhGaussian, log_density
from serl_suite.wire.spaces import EnvSpec, Observation

__all__ = ["RLPD", "RLPDConfig"]

Loss = tuple[Tensor, dict[str, Tensor]]


class RLPD:
    """The learner's half of the algorithm; an actor needs only `Policy`.

    Args:
        config: Settings.
        spec: Of the environment, as the actor's hello gave it.
        seed: Of the weights and of every draw that follows.
        device: Where it computes.

    Raises:
        BadAgent: the spec holds images, or nothing but images.
    """

    def __init__(
        self, config: RLPDConfig, spec: EnvSpec, *, seed: int, device: str | torch.device = "cpu"
    ) -> None:
        self.config, self.spec, self.device = config, spec, torch.device(device)
        self.updates = 0
        """Critic updates so far."""
        self.actor = make_actor(config, spec, seed).to(self.device)
        weights = torch.Generator().manual_seed(seed + 1)
        self.critic = EnsembleMLP(
            config.num_critics, spec.state_dim + spec.action_dim, config.hidden, 1,
            generator=weights, layer_norm=config.layer_norm,
        ).to(self.device)  # fmt: skip
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = (
            torch.tensor(config.initial_temperature, device=self.device).log().requires_grad_()
        )
        self.target_entropy = -spec.action_dim / 2 if config.target_entropy is None else config.target_entropy
        self.generator = torch.Generator(self.device).manual_seed(seed + 2)
        """Of every draw."""
        self._critic_parameters: list[Tensor] = list(self.critic.parameters())
        self._target_parameters: list[Tensor] = list(self.target_critic.parameters())
        self._actor_parameters = [*self.actor.parameters(), self.log_temperature]
        self._critic_optimiser = make_adam(self._critic_parameters, config.learning_rate)
        self._actor_optimiser = make_adam(self._actor_parameters, config.learning_rate)
        self._critic_loss, self._actor_loss = self.critic_loss, self.actor_loss
        self._move_critic, self._move_actor = self._step_critic, self._step_actor

    def fit_normaliser(self, states: NDArray[np.float32]) -> None:
        """Sets the state statistics, once, before the first update. Shape: (n, state_dim)"""
        self.actor.normaliser.fit(states)

    def act(self, observation: Observation, explore: bool) -> NDArray[np.float32]:
        """An action in [-1, 1]: the policy's mode, or a draw where `explore`. Shape: (action_dim,)"""
        state = torch.from_numpy(self.spec.flatten(observation)).to(self.device)
        return self.actor.act(state[None], self.generator if explore else None)[0].cpu().numpy()

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One critic update; every `actor_period`-th call also updates actor and temperature.

        Returns: scalars on the device, `critic/...` and, where they moved, `actor/...`.
        """
        loss, metrics = self._critic_loss(batch, self._draw_noise(batch.action), self._draw_subset())
        differentiate(loss, self._critic_parameters)
        self._move_critic()
        self.updates += 1
        if self.updates % self.config.actor_period == 0:
            loss, info = self._actor_loss(batch.state, self._draw_noise(batch.action))
            differentiate(loss, self._actor_parameters)
            self._move_actor()
            metrics |= info
        return metrics

    def compile(self) -> None:
        """From now on updates run as compiled code, the same but for rounding; for a CUDA device."""
        self._critic_loss = torch.compile(self.critic_loss, dynamic=False)
        self._actor_loss = torch.compile(self.actor_loss, dynamic=False)
        self._move_critic = compiled_step(self._critic_optimiser, self._target_parameters, self.config.tau)
        self._move_actor = compiled_step(self._actor_optimiser)

    def critic_loss(self, batch: Batch, noise: Tensor, subset: Tensor | None) -> Loss:
        """Squared distance to the target, summed over the members.

        Args:
            batch: What it learns from.
            noise: Standard normal, of the next action. Shape: (batch, action_dim)
            subset: Members whose minimum makes the target; None: all.
        """
        config = self.config
        state, next_state = self.actor.normaliser(batch.state), self.actor.normaliser(batch.next_state)
        with torch.no_grad():
            raw, log_std = self.actor.draw(next_state, noise)
            next_q = self.target_critic(torch.cat([next_state, torch.tanh(raw)], -1), subset)
            next_v = next_q.squeeze(-1).amin(0)
            if config.backup_entropy:
                next_v -= self.log_temperature.exp() * log_density(raw, log_std, noise)
            target = torch.addcmul(batch.reward, batch.mask, next_v, value=config.discount)
        q = self.critic(torch.cat([state, batch.action], -1)).squeeze(-1)
        loss = (q - target).square().sum() / len(target)
        return loss, {
            "critic/loss": loss.detach() / config.num_critics,
            "critic/q": q.detach().mean(),
            "critic/target": target.mean(),
        }

    def actor_loss(self, state: Tensor, noise: Tensor) -> Loss:
        """Policy loss plus temperature loss; their gradients do not meet.

        Shapes: (batch, state_dim), (batch, action_dim)
        """
        state = self.actor.normaliser(state)
        raw, log_std = self.actor.draw(state, noise)
        log_pi = log_density(raw, log_std, noise)
        q = self.critic.frozen(torch.cat([state, torch.tanh(raw)], -1)).squeeze(-1).mean(0)
        temperature, entropy = self.log_temperature.exp(), -log_pi.mean()
        policy_loss = -(temperature.detach() * entropy) - q.mean()
        temperature_loss = temperature * (entropy.detach() - self.target_entropy)
        return policy_loss + temperature_loss, {
            "actor/loss": policy_loss.detach(),
            "actor/entropy": entropy.detach(),
            "actor/q": q.detach().mean(),
            "actor/temperature": temperature.detach(),
        }

    def policy_state(self) -> dict[str, NDArray[np.float32]]:
        """A copy of what `Policy.load` takes: the policy network and the state statistics."""
        return {
            name: tensor.detach().cpu().numpy().copy() for name, tensor in self.actor.state_dict().items()
        }

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of everything that the next update depends on."""
        state = {
            **module_state("actor", self.actor),
            **module_state("critic", self.critic),
            **module_state("target_critic", self.target_critic),
            **adam_state("critic_optimiser", self._critic_optimiser),
            **adam_state("actor_optimiser", self._actor_optimiser),
            "log_temperature": self.log_temperature,
            "generator": self.generator.get_state(),
            "updates": torch.tensor(self.updates),
        }
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores `state_dict`, after which updates go on exactly as they would have.

        Raises:
            BadAgent: It is of other settings, other spaces or another kind of device; nothing was changed.
        """
        mine, theirs = ({k: tuple(v.shape) for k, v in s.items()} for s in (self.state_dict(), state))
        if odd := sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k)):
            there, here = theirs.get(odd[0], "absent"), mine.get(odd[0], "absent")
            raise BadAgent(
                f"the checkpoint does not fit this agent: {odd[0]} is {there} there and {here} here, one of {len(odd)} "
                "differences; set agent and device back to what it was trained with, or begin a new run"
            )
        load_module("actor", self.actor, state)
        load_module("critic", self.critic, state)
        load_module("target_critic", self.target_critic, state)
        load_adam_state("critic_optimiser", self._critic_optimiser, state)
        load_adam_state("actor_optimiser", self._actor_optimiser, state)
        with torch.no_grad():
            self.log_temperature.copy_(state["log_temperature"])
        self.generator.set_state(state["generator"])
        self.updates = int(state["updates"])

    def _step_critic(self) -> None:
        self._critic_optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._target_parameters, self._critic_parameters, self.config.tau)

    def _step_actor(self) -> None:
        self._actor_optimiser.step()

    def _draw_noise(self, action: Tensor) -> Tensor:
        return torch.randn(action.shape, generator=self.generator, device=self.device)

    def _draw_subset(self) -> Tensor | None:
        """Distinct members for the target; None where it is all of them."""
        config = self.config
        if config.critic_subset == config.num_critics:
            return None
        order = torch.randperm(config.num_critics, generator=self.generator, device=self.device)
        return order[: config.critic_subset]


def make_actor(config: RLPDConfig, spec: EnvSpec, seed: int) -> TanhGaussian:
    """The policy network, on the CPU.

    Raises:
        BadAgent: the spec holds images, which this agent does not read.
    """
    if spec.image_keys or spec.state_dim == 0:
        raise BadAgent(
            f"rlpd reads states, and {spec.task} also observes images {list(spec.image_keys)}; "
            "make the environment without cameras"
        )
    generator = torch.Generator().manual_seed(seed)
    return TanhGaussian(
        spec.state_dim, spec.action_dim, config.hidden, generator=generator, layer_norm=config.layer_norm
    )
