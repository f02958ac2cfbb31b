"""Settings of RLPD; without torch, so that a command line is read before that is imported."""

from typing import Literal

import msgspec

from serl_suite.agents.errors import BadAgent
from serl_suite.networks.encoder_config import EncoderConfig

__all__ = ["RLPDConfig"]


class RLPDConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of RLPD. The defaults are for sparse rewards, a state observation and two CPU cores."""

    num_critics: int = 10
    """Members of the critic ensemble."""
    critic_subset: int = 2
    """Members whose minimum makes the target, drawn without replacement for every update."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers of every network."""
    layer_norm: bool = True
    """LayerNorm after every hidden layer."""
    discount: float = 0.97
    """gamma, per control step."""
    tau: float = 0.005
    """Share of the critics that enters their targets at every update."""
    learning_rate: float = 1e-3
    """Of Adam, for all networks and the temperature."""
    batch_size: int = 256
    """Transitions per update."""
    demo_fraction: float = 0.5
    """Share of a batch that comes from demonstrations and interventions."""
    utd: float | Literal["free"] = 8.0
    """Critic updates per environment step; free: as many as the learner can, for a robot that sets the pace."""
    actor_period: int = 4
    """Critic updates per update of actor and temperature."""
    initial_temperature: float = 0.01
    """alpha at the start."""
    target_entropy: float | None = None
    """Entropy that the temperature aims at; None is minus half the action dimension."""
    backup_entropy: bool = False
    """Whether the target counts the entropy of what follows."""
    encoder: EncoderConfig = EncoderConfig()
    """How pictures are seen, where the environment observes any."""

    def __post_init__(self) -> None:
        if not 1 <= self.critic_subset <= self.num_critics:
            raise BadAgent(
                f"critic_subset is {self.critic_subset}; set it between 1 and num_critics={self.num_critics}"
            )
        if (
            not 0.0 <= self.demo_fraction <= 1.0
            or not 0.0 <= self.discount < 1.0
            or not 0.0 < self.tau <= 1.0
        ):
            raise BadAgent("demo_fraction lies in [0, 1], discount in [0, 1) and tau in (0, 1]")
        counts = (self.batch_size, self.actor_period, *self.hidden, len(self.hidden))
        rates = (self.learning_rate, self.initial_temperature, 1.0 if self.utd == "free" else self.utd)
        if min(counts) < 1 or min(rates) <= 0:
            raise BadAgent(
                "batch_size, actor_period, hidden, utd, learning_rate, initial_temperature are positive"
            )
