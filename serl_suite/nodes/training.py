"""What a learner trains: the agent, its replays and the updates between them, the same in each of its processes."""

import math

import safetensors.torch
import torch
from torch import Tensor

from serl_suite.agents.ranks import ALONE, Ranks
from serl_suite.agents.registry import make_agent
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.nodes.config import BadConfig, TrainConfig
from serl_suite.nodes.device_memory import out_of_memory_explained
from serl_suite.nodes.experience import Experience
from serl_suite.nodes.group import Group
from serl_suite.nodes.orders import Begin, Fit, Load, Orders, Update
from serl_suite.nodes.updates import Updates
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import EnvSpec

__all__ = ["SharedTraining", "Training", "check_shares"]


class Training:
    """Agent and replays of a run. Only what is done through this object is done in every process.

    Args:
        spec: What a step holds.
        config: Of the run.
        demonstrated: Steps that `demonstrate` will bring.
        ranks: The processes that learn with it.
        on_this_machine: How many of them share its memory.

    Raises:
        ReplayTooLarge: The replays would not fit into memory.
        DeviceFull: Something else has taken it.
        BadAgent, BadEncoder: The settings do not fit the spec.
    """

    def __init__(
        self,
        spec: EnvSpec,
        config: TrainConfig,
        demonstrated: int,
        *,
        ranks: Ranks = ALONE,
        on_this_machine: int = 1,
    ) -> None:
        device = torch.device(config.learner.device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        self._device = device
        with out_of_memory_explained(device):
            self.agent = make_agent("rlpd", config.agent, spec, seed=config.seed, device=device, ranks=ranks)
            self.experience = Experience(
                spec, config, demonstrated, features=self.agent.kept_features(), sharing=on_this_machine
            )
        self.updates = Updates(self.agent, self.experience)

    def demonstrate(self, session_id: str, step: Step) -> None:
        """One more step of a demonstration.

        Raises:
            DeviceFull: As `update`.
        """
        self.updates.settle()
        with out_of_memory_explained(self._device):
            self.experience.demonstrate(session_id, step)

    def insert(self, session_id: str, step: Step) -> None:
        """One more step of an actor.

        Raises:
            DeviceFull: As `update`.
        """
        self.updates.settle()
        with out_of_memory_explained(self._device):
            self.experience.insert(session_id, step)

    def fit_normaliser(self) -> None:
        """Sets the state statistics: from demonstrations, where there are any."""
        experience = self.experience
        replay = experience.demos if experience.demonstrated else experience.online
        self.agent.fit_normaliser(replay.states())

    def update(self) -> dict[str, Tensor]:
        """Does `updates.next` updates. Returns: metrics of the last one, scalars on the device.

        Raises:
            DeviceFull: There is no memory left for them.
        """
        with out_of_memory_explained(self._device):
            return self.updates.run()

    def load(self, state: dict[str, Tensor], online_rng: str, demos_rng: str) -> None:
        """Takes up agent and samplers as a checkpoint has them.

        Raises:
            BadAgent: They are of other settings; nothing was changed.
        """
        self.agent.load_state_dict(state)
        self.experience.online.set_rng_state(online_rng)
        self.experience.demos.set_rng_state(demos_rng)


class SharedTraining(Training):
    """As `Training`, in the first of several processes: tells the others what it does.

    Args:
        spec, config, demonstrated: As above.
        group: The others listen (nodes/follower.py).
    """

    def __init__(self, spec: EnvSpec, config: TrainConfig, demonstrated: int, group: Group) -> None:
        self._group, self._orders = group, Orders(group)
        super().__init__(
            spec,
            group.with_own_device(config),
            demonstrated,
            ranks=group.ranks,
            on_this_machine=group.on_this_machine,
        )
        self._orders.put(Begin(config=config, spec=spec, demonstrated=demonstrated))

    def demonstrate(self, session_id: str, step: Step) -> None:
        """One more step of a demonstration."""
        self._orders.insert(session_id, step, "demos")
        super().demonstrate(session_id, step)

    def insert(self, session_id: str, step: Step) -> None:
        """One more step of an actor."""
        self._orders.insert(session_id, step, "online")
        super().insert(session_id, step)

    def fit_normaliser(self) -> None:
        """Sets the state statistics."""
        self._orders.put(Fit())
        super().fit_normaliser()

    def update(self) -> dict[str, Tensor]:
        """Does `updates.next` updates, all processes together."""
        self._orders.put(Update())
        self._orders.send()
        with self._group.at_one():
            return super().update()

    def load(self, state: dict[str, Tensor], online_rng: str, demos_rng: str) -> None:
        """Takes up agent and samplers as a checkpoint has them."""
        super().load(state, online_rng, demos_rng)
        tensors = safetensors.torch.save(state)
        self._orders.put(Load(online_rng=online_rng, demos_rng=demos_rng), tensors)


def check_shares(agent: RLPDConfig, processes: int) -> None:
    """Each process gets as much of every batch, and as many demonstrations.

    Raises:
        BadConfig: They do not; the message names a batch that does.
    """
    if _divides(processes, agent.batch_size, agent.demo_fraction):
        return
    demos = round(agent.batch_size * agent.demo_fraction)
    most = 2 * processes * agent.batch_size
    sizes = (size for size in range(agent.batch_size, most) if _divides(processes, size, agent.demo_fraction))
    fitting = next(sizes, math.nan)
    raise BadConfig(
        f"{processes} processes cannot share batches of {agent.batch_size} transitions, {demos} of them "
        f"demonstrations, evenly; give --agent.batch-size {fitting}, or start another number of processes"
    )


def _divides(processes: int, batch_size: int, demo_fraction: float) -> bool:
    return batch_size % processes == 0 and round(batch_size * demo_fraction) % processes == 0
