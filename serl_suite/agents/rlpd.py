"""RLPD: off-policy learning with prior data (Ball et al. 2023, arXiv 2302.02948).

Soft actor-critic with an ensemble of LayerNorm critics, a target from the minimum over a random subset of them,
many updates per environment step and batches of which half are demonstrations:

    y      = r + gamma m (min over k in subset of Q'_k(s', a') - [alpha log pi(a'|s')]),   a' ~ pi(s')
    critic = sum over k of mean (Q_k(s, a) - y)^2
    actor  = mean (alpha log pi(a|s) - mean over k of Q_k(s, a)),                          a ~ pi(s)
    alpha  = softening weight, moved until the policy's entropy meets its target

The term in brackets (`backup_entropy`) is off for sparse rewards.

s stands for the encoded observation. Where there are pictures, the critics' loss alone trains the encoder, target
critics see through target heads, and each picture goes through the backbone once an update.
"""

import copy
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serl_suite.agents.agent import BadAgent
from serl_suite.agents.module_state import load_module, module_state
from serl_suite.agents.optimiser import adam_state, compiled_step, differentiate, load_adam_state, make_adam
from serl_suite.agents.policy_network import PolicyNetwork
from serl_suite.agents.ranks import ALONE, Ranks, SharedGradients
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.data.columns import Features
from serl_suite.data.replay import Batch
from serl_suite.networks.encoder import PixelEncoder, StateEncoder
from serl_suite.networks.ensemble import EnsembleMLP
from serl_suite.networks.gaussian import log_density
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
        ranks: Which processes learn with it, from shares of the same batches.

    Raises:
        BadAgent: The spec's images are not square, or not all of one size.
        BadEncoder: There is no such backbone, or its weights do not fit.
    """

    def __init__(
        self,
        config: RLPDConfig,
        spec: EnvSpec,
        *,
        seed: int,
        device: str | torch.device = "cpu",
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.spec, self.device, self.ranks = config, spec, torch.device(device), ranks
        self._seed = seed
        self.updates = 0
        """Critic updates so far."""
        self.policy = PolicyNetwork(config, spec, seed).to(self.device)
        self.encoder, self.actor = self.policy.encoder, self.policy.actor
        self.encoder.settle()
        weights = torch.Generator().manual_seed(seed + 1)
        self.critic = EnsembleMLP(
            config.num_critics, self.encoder.width + spec.action_dim, config.hidden, 1,
            generator=weights, layer_norm=config.layer_norm,
        ).to(self.device)  # fmt: skip
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.target_heads = copy.deepcopy(self.encoder.heads).requires_grad_(False)
        self.log_temperature = (
            torch.tensor(config.initial_temperature, device=self.device).log().requires_grad_()
        )
        self.target_entropy = -spec.action_dim / 2 if config.target_entropy is None else config.target_entropy
        self.generator = torch.Generator(self.device).manual_seed(seed + 2)
        """Of every draw."""
        followed: list[Tensor] = [*self.critic.parameters(), *self.encoder.heads.parameters()]
        self._target_parameters: list[Tensor] = [
            *self.target_critic.parameters(),
            *self.target_heads.parameters(),
        ]
        self._critic_parameters = followed + self.encoder.backbone_parameters()
        """Those that have targets first."""
        self._actor_parameters = [*self.actor.parameters(), self.log_temperature]
        self._critic_optimiser = make_adam(self._critic_parameters, config.learning_rate)
        self._actor_optimiser = make_adam(self._actor_parameters, config.learning_rate)
        self._shared_gradients = (
            [SharedGradients(some, ranks) for some in (self._critic_parameters, self._actor_parameters)]
            if ranks.size > 1
            else None
        )
        self._see, self._critic_loss, self._actor_loss = self.see, self.critic_loss, self.actor_loss
        self._move_critic, self._move_actor = self._step_critic, self._step_actor

    def fit_normaliser(self, states: NDArray[np.float32]) -> None:
        """Sets the state statistics, once, before the first update. Shape: (n, state_dim)"""
        self.encoder.normaliser.fit(states)

    def kept_features(self) -> Features | None:
        """What a replay is to keep in the place of images; None: the images."""
        views = self.config.encoder.stored_shifts
        if not views or not isinstance(self.encoder, PixelEncoder):
            return None
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        size = math.prod(self.encoder.feature_shape)
        return Features(self.encoder.features, size, dtype, views, seed=self._seed, device=self.device)

    def act(self, observation: Observation, explore: bool) -> NDArray[np.float32]:
        """An action in [-1, 1]: the policy's mode, or a draw where `explore`. Shape: (action_dim,)"""
        return self.policy.act(observation, self.generator if explore else None)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One critic update; every `actor_period`-th call also updates actor and temperature.

        Returns: scalars on the device, `critic/...` and, where they moved, `actor/...`.
        """
        noise, subset = self._draw_noise(batch.action), self._draw_subset()
        seen, next_seen = self._see(batch)
        loss, metrics = self._critic_loss(batch, seen, next_seen, noise, subset)
        differentiate(loss, self._critic_parameters)
        self._share_gradients(0)
        self._move_critic()
        self.updates += 1
        if self.updates % self.config.actor_period == 0:
            seen = None if seen is None else seen.detach()
            loss, info = self._actor_loss(seen, batch.state, self._draw_noise(batch.action))
            differentiate(loss, self._actor_parameters)
            self._share_gradients(1)
            self._move_actor()
            metrics |= info
        return metrics

    def compile(self) -> None:
        """From now on updates run as compiled code, the same but for rounding; for a CUDA device."""
        if not self.encoder.frozen:
            self._see = torch.compile(self.see, dynamic=False)
        self._critic_loss = torch.compile(self.critic_loss, dynamic=False)
        self._actor_loss = torch.compile(self.actor_loss, dynamic=False)
        self._move_critic = compiled_step(self._critic_optimiser, self._target_parameters, self.config.tau)
        self._move_actor = compiled_step(self._actor_optimiser)

    def see(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """What the backbone makes of the pictures before and after; None without pictures.

        Shape of each: (cameras, batch, features)
        """
        if isinstance(self.encoder, StateEncoder):
            return None, None
        if self.encoder.frozen:
            with torch.no_grad():
                seen = self.encoder.see(batch.images, batch.next_images)
            return seen[:, : len(batch.state)], seen[:, len(batch.state) :]
        with torch.no_grad():
            next_seen = self.encoder.see(batch.next_images)
        return self.encoder.see(batch.images), next_seen

    def critic_loss(
        self,
        batch: Batch,
        seen: Tensor | None,
        next_seen: Tensor | None,
        noise: Tensor,
        subset: Tensor | None,
    ) -> Loss:
        """Squared distance to the target, summed over the members.

        Args:
            batch: What it learns from.
            seen, next_seen: What `see` made of its pictures.
            noise: Standard normal, of the next action. Shape: (batch, action_dim)
            subset: Members whose minimum makes the target; None: all.
        """
        config, encoder = self.config, self.encoder
        latent = encoder(seen, batch.state)
        with torch.no_grad():
            raw, log_std = self.actor.draw(encoder(next_seen, batch.next_state), noise)
            next_latent = self.target_heads(next_seen, encoder.normaliser(batch.next_state))
            next_q = self.target_critic(torch.cat([next_latent, torch.tanh(raw)], -1), subset)
            next_v = next_q.squeeze(-1).amin(0)
            if config.backup_entropy:
                next_v -= self.log_temperature.exp() * log_density(raw, log_std, noise)
            target = torch.addcmul(batch.reward, batch.mask, next_v, value=config.discount)
        q = self.critic(torch.cat([latent, batch.action], -1)).squeeze(-1)
        loss = (q - target).square().sum() / len(target)
        return loss, {
            "critic/loss": loss.detach() / config.num_critics,
            "critic/q": q.detach().mean(),
            "critic/target": target.mean(),
        }

    def actor_loss(self, seen: Tensor | None, state: Tensor, noise: Tensor) -> Loss:
        """Policy loss plus temperature loss, which the encoder does not learn from.

        Shapes: (cameras, batch, features), (batch, state_dim), (batch, action_dim)
        """
        with torch.no_grad():
            latent = self.encoder(seen, state)
        return self.policy_loss(latent, noise)

    def policy_loss(self, latent: Tensor, noise: Tensor) -> Loss:
        """Both losses of an encoded observation; their gradients do not meet.

        Shapes: (batch, width), (batch, action_dim)
        """
        raw, log_std = self.actor.draw(latent, noise)
        log_pi = log_density(raw, log_std, noise)
        q = self.critic.frozen(torch.cat([latent, torch.tanh(raw)], -1)).squeeze(-1).mean(0)
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
        """A copy of what `Policy.load` takes: the policy network, its encoder and the state statistics."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.policy_tensors().items()}

    def policy_tensors(self) -> dict[str, Tensor]:
        """What `policy_state` copies."""
        return self.policy.trained_state()

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of everything that the next update depends on."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.state_tensors().items()}

    def state_tensors(self) -> dict[str, Tensor]:
        """What `state_dict` copies."""
        return {
            **{f"policy.{name}": tensor for name, tensor in self.policy.trained_state().items()},
            **module_state("critic", self.critic),
            **module_state("target_critic", self.target_critic),
            **module_state("target_heads", self.target_heads),
            **adam_state("critic_optimiser", self._critic_optimiser),
            **adam_state("actor_optimiser", self._actor_optimiser),
            "log_temperature": self.log_temperature,
            "generator": self.generator.get_state(),
            "updates": torch.tensor(self.updates),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores `state_dict`, after which updates go on exactly as they would have.

        Raises:
            BadAgent: It is of other settings, other spaces or another kind of device; nothing was changed.
        """
        mine, theirs = ({k: tuple(v.shape) for k, v in s.items()} for s in (self.state_tensors(), state))
        if odd := sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k)):
            there, here = theirs.get(odd[0], "absent"), mine.get(odd[0], "absent")
            raise BadAgent(
                f"the checkpoint does not fit this agent: {odd[0]} is {there} there and {here} here, one of {len(odd)} "
                "differences; set agent and device back to what it was trained with, or begin a new run"
            )
        self.policy.load_trained(
            {name.removeprefix("policy."): state[name] for name in mine if name.startswith("policy.")}
        )
        load_module("critic", self.critic, state)
        load_module("target_critic", self.target_critic, state)
        load_module("target_heads", self.target_heads, state)
        load_adam_state("critic_optimiser", self._critic_optimiser, state)
        load_adam_state("actor_optimiser", self._actor_optimiser, state)
        with torch.no_grad():
            self.log_temperature.copy_(state["log_temperature"])
        self.generator.set_state(state["generator"])
        self.updates = int(state["updates"])

    def _step_critic(self) -> None:
        self._critic_optimiser.step()
        with torch.no_grad():
            followed = self._critic_parameters[: len(self._target_parameters)]
            torch._foreach_lerp_(self._target_parameters, followed, self.config.tau)

    def _step_actor(self) -> None:
        self._actor_optimiser.step()

    def _share_gradients(self, which: int) -> None:
        """Of the critics (0), or of actor and temperature (1)."""
        if self._shared_gradients is not None:
            self._shared_gradients[which].average()

    def _draw_noise(self, action: Tensor) -> Tensor:
        """This process's share of the noise of all. Shape: (batch, action_dim)"""
        whole = (len(action) * self.ranks.size, *action.shape[1:])
        return torch.randn(whole, generator=self.generator, device=self.device)[self.ranks.share]

    def _draw_subset(self) -> Tensor | None:
        """Distinct members for the target; None where it is all of them."""
        config = self.config
        if config.critic_subset == config.num_critics:
            return None
        order = torch.randperm(config.num_critics, generator=self.generator, device=self.device)
        return order[: config.critic_subset]
