"""Tasks whose policy sets the arm's stiffness and sees what energy is left: the twin, and the environment around it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Dict
from serl_hardware.franka import fr3
from serl_hardware.franka.model import TIMESTEP_S

from serl_envs.env import RobotEnv
from serl_envs.robot import Array, Setpoint
from serl_envs.tasks.task import Task, box
from serl_envs.twins.franka import FrankaTwin, control_config
from serl_suite.control import JointLimits, make_parameters
from serl_suite.control.rotations import quaternion_inverse, rotate

__all__ = ["CompliantEnv", "CompliantTask", "CompliantTwin", "EnergyReport", "make_compliant_env"]

VALVE_SHARE = 0.7
"""Where the power valve closes, as a share of P_max: a torque falls by 1 Nm a tick while the arm still speeds up."""

_SPACES = {
    "tank": box([-1.0], [1.0]),
    "stiffness": box([0.0] * 3, [1.0] * 3),
    "spring": box([-0.1] * 3, [0.1] * 3),
}


class CompliantTask(Task, Protocol):
    """A task with an energy budget; its `stiffness_n_per_m` is the greatest that a policy can ask for."""

    least_share: float
    """The least stiffness, as a share of the greatest."""
    tank_max_j: float
    """T_max: what an episode may put into the arm."""
    tank_min_j: float
    """T_min: a tank below this is a violation."""
    max_power_w: float
    """P_max: more power into the arm than this is a violation."""


class EnergyReport(NamedTuple):
    """What went through the controller's port since `start_tally`."""

    fraction: float
    """T / T_max now; negative where nothing holds an empty tank back."""
    least_fraction: float
    work_j: float
    """Energy that went into the arm; negative: more came back."""
    peak_power_w: float
    gamma: float
    """By what the filter scaled the last torque."""
    share: Array
    """Translational stiffness in force, as a share of the greatest, base frame, (3,)."""
    target: Array
    """Position that the spring pulls to, base frame [m], (3,)."""


class CompliantTwin(FrankaTwin):
    """The twin of the arm with a stiffness that can be set while it moves.

    Args:
        task: What stands in the scene, and the energy budget.
        passivity: Whether the energy tank scales torques and shortens moves; it is accounted for either way.
    """

    def __init__(self, task: CompliantTask, *, passivity: bool = True) -> None:
        super().__init__(task)
        config = msgspec.structs.replace(
            control_config(task),
            passivity=passivity,
            tank_max=task.tank_max_j,
            tank_min=task.tank_min_j,
            max_power=VALVE_SHARE * task.max_power_w,
        )
        arm = fr3()
        limits = JointLimits(arm.q_min, arm.q_max, arm.max_velocity, arm.max_torque)
        self._parameters = make_parameters(config, limits, TIMESTEP_S)

    def set_stiffness(self, share: Array) -> None:
        """Asks for translational stiffnesses as shares of the greatest, which follow through the target's filter.

        Shape: (3,), base frame.
        """
        self._control_state.wanted_share[:3] = share

    def start_tally(self) -> None:
        """Sets work, peak power and lowest level back."""
        state = self._control_state
        state.work_j[0] = state.peak_power_w[0] = 0.0
        state.least_fraction[0] = state.tank_fraction[0]

    @property
    def energy(self) -> EnergyReport:
        """The port's account; the arrays are copies."""
        state = self._control_state
        return EnergyReport(
            fraction=float(state.tank_fraction[0]),
            least_fraction=float(state.least_fraction[0]),
            work_j=float(state.work_j[0]),
            peak_power_w=float(state.peak_power_w[0]),
            gamma=float(state.gamma[0]),
            share=state.share[:3].copy(),
            target=state.target_position.copy(),
        )


class CompliantEnv(RobotEnv):
    """A robot doing a task at 10 Hz with a stiffness of the policy's choice and an energy budget.

    Action, in [-1, 1], shape (7,): translation in the tool frame and turn about its axis, as fractions of the task's
    scales; then the stiffness along the base's axes, from the task's least (-1) to its greatest (1), geometrically.

    Observation: that of `RobotEnv`, and `tank` T / T_max; `stiffness` in force as a share of the greatest; `spring`
    from the TCP to the pose that it is drawn to [m], tool frame.

    `info` carries of the step: `cost`, 1.0 where T < T_min or the power into the arm was above P_max, else 0.0;
    `work_j`, the energy that went into the arm; and `executed_action`, what was left of the action once workspace,
    tank and filter had their say: the way that the target really went, and the stiffness times gamma.

    Args:
        robot: What moves.
        task: What is to be done.
        cameras, render_mode: As `RobotEnv`.
    """

    robot: CompliantTwin
    task: CompliantTask

    def __init__(
        self,
        robot: CompliantTwin,
        task: CompliantTask,
        *,
        cameras: Sequence[str] = (),
        render_mode: str | None = None,
    ) -> None:
        super().__init__(robot, task, cameras=cameras, render_mode=render_mode)
        assert isinstance(self.observation_space, Dict)
        self.observation_space = Dict({**self.observation_space.spaces, **_SPACES})

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[dict[str, npt.NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """As `RobotEnv`; `info` has the cost (1: the energy constraint is violated), the work [J], and the action
        that the arm executed.

        Raises:
            InvalidAction, RobotFault: As there.
        """
        before = self._state
        self.robot.start_tally()
        observation, reward, terminated, truncated, info = super().step(action)
        energy, task = self.robot.energy, self.task
        dry = energy.least_fraction * task.tank_max_j < task.tank_min_j
        info["cost"] = float(dry or energy.peak_power_w > task.max_power_w)
        info["work_j"] = energy.work_j
        executed = np.array(action, np.float32)
        moved = rotate(quaternion_inverse(before.quaternion), energy.target - before.position)
        executed[:3] = moved / task.translation_m
        executed[4:7] = 1.0 - 2.0 * np.log(np.maximum(energy.gamma * energy.share, 1e-9)) / np.log(
            task.least_share
        )
        info["executed_action"] = np.clip(executed, -1.0, 1.0)
        return observation, reward, terminated, truncated, info

    def _setpoint(self, action: Array) -> Setpoint:
        self.robot.set_stiffness(self.task.least_share ** (0.5 * (1.0 - action[4:7])))
        return super()._setpoint(np.array([*action[:3], 0.0, 0.0, action[3], 0.0]))

    def _observation(self) -> dict[str, npt.NDArray[Any]]:
        energy, state = self.robot.energy, self._state
        spring = rotate(quaternion_inverse(state.quaternion), energy.target - state.position)
        values = {"tank": np.array([energy.fraction]), "stiffness": energy.share, "spring": spring}
        observation = super()._observation()
        for key, value in values.items():
            space = _SPACES[key]
            observation[key] = np.clip(value, space.low, space.high).astype(np.float32)
        return observation


def make_compliant_env(task: str, *, passivity: bool = True, **arguments: Any) -> CompliantEnv:  # noqa: ANN401
    """Builds the compliant twin with the task's scene ("module:class") and the environment around both."""
    import importlib

    module, name = task.split(":")
    instance = getattr(importlib.import_module(module), name)()
    return CompliantEnv(CompliantTwin(instance, passivity=passivity), instance, **arguments)
