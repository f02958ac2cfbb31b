"""The simulated arm, hand and scene: torque and opening in, a millisecond later."""

import mujoco
import numpy as np
from serl_hardware.franka.model import TIMESTEP_S

from serl_envs.robot import Array
from serl_envs.tasks.task import Task
from serl_envs.twins.franka import FrankaTwin, SimulationDiverged
from serl_envs.twins.loop import ARM

__all__ = ["Plant"]

GRAVITY = 9.81


class Plant:
    """MuJoCo with what the arm's own model knows about it. Nothing here reads a clock.

    Args:
        task: Its scene, in one of its starts.
        seed: Of that start.
        rk4: Integrates by Runge-Kutta instead of Euler. The work that encoders see, tau' (q_after - q_before), is then
            true; Euler's is off by 0.5 dt^2 tau' M^-1 tau a step.
    """

    def __init__(self, task: Task, seed: int, *, rk4: bool = False) -> None:
        twin = FrankaTwin(task)
        task.reset(twin, np.random.default_rng(seed))
        self.model, self.data = twin.model, twin.data
        self.data.time = 0.0
        self._rk4 = rk4
        if rk4:
            self.model.opt.integrator = mujoco.mjtIntegrator.mjINT_RK4
        self.q, self.dq = self.data.qpos[:ARM], self.data.qvel[:ARM]
        """Joint positions [rad] and velocities [rad/s], (7,): views of the simulation."""
        self.mass = np.zeros((ARM, ARM))
        """Inertia with the rotors' [kg m^2]."""
        self.coriolis, self.gravity = np.zeros(ARM), np.zeros(ARM)
        """Torque of Coriolis and centrifugal forces, and torque that holds arm and hand [N m]."""
        self._full_mass = np.zeros((self.model.nv, self.model.nv))
        self.look()

    @property
    def time_s(self) -> float:
        """Simulated time."""
        return float(self.data.time)

    @property
    def width(self) -> float:
        """Opening between the fingers [m]."""
        return float(self.data.qpos[ARM] + self.data.qpos[ARM + 1])

    @property
    def opening_reference(self) -> float:
        """What the hand's servo tracks [m]."""
        return float(self.data.ctrl[ARM])

    @property
    def external_torque(self) -> Array:
        """What contacts, friction and joint stops exerted on the joints in the last step, (7,) [N m]: the truth, for
        audits."""
        passive = self.data.qfrc_passive[:ARM] - self.data.qfrc_gravcomp[:ARM]
        return np.asarray(self.data.qfrc_constraint[:ARM] + passive, np.float64)

    @property
    def at_rest(self) -> bool:
        """Whether nothing in the scene moves to speak of."""
        return bool(np.abs(self.data.qvel).max() < 1e-3)

    def step(self, tau: Array, opening_reference: float) -> None:
        """Advances by one millisecond.

        Args:
            tau: Joint torques beyond those that hold arm and hand against gravity, (7,).
            opening_reference: What the hand's servo tracks [m].

        Raises:
            SimulationDiverged: NaN or inf in the physics; the twin is of no more use.
        """
        self.data.ctrl[:ARM], self.data.ctrl[ARM] = tau, opening_reference
        if self._rk4:
            mujoco.mj_step(self.model, self.data)
        else:
            mujoco.mj_step2(self.model, self.data)
        mujoco.mj_step1(self.model, self.data)
        if not np.isfinite(self.data.qvel).all():
            raise SimulationDiverged(
                f"the simulation produced NaN or inf after {self.time_s:.3f} s; start the twin again, and look for an "
                "object placed inside another"
            )
        self.look()

    def look(self) -> None:
        """Takes over the simulated state and what follows from it, after a step or a change from outside."""
        mujoco.mj_fullM(self.model, self.data, self._full_mass)
        self.mass[:] = self._full_mass[:ARM, :ARM]
        self.gravity[:] = self.data.qfrc_gravcomp[:ARM]
        np.subtract(self.data.qfrc_bias[:ARM], self.gravity, out=self.coriolis)


assert TIMESTEP_S == 0.001, "the arm's clock counts milliseconds"
