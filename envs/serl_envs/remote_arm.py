"""An arm of metal doing a task: its robot server, and marks in the air where a task wants things."""

import mujoco
import numpy as np
import numpy.typing as npt

from serl_envs.remote import RemoteRobot
from serl_envs.robot import RobotState
from serl_envs.twins.loop import ARM
from serl_envs.twins.rendering import Painter
from serl_envs.twins.scene import Scene
from serl_suite.control import ControlConfig
from serl_suite.wire.keys import ClientKeys

__all__ = ["RemoteArm"]


class RemoteArm(RemoteRobot):
    """Implements `SimulatedRobot` as far as an arm of metal can: what is placed in its scene is a mark, such as a goal,
    that nothing real corresponds to.

    Args:
        scene: With the arm's model; without things that could move.
        address, keys, name, gains: As `RemoteRobot`.

    Raises:
        AddressError, RobotUnreachable: As `RemoteRobot`.
    """

    def __init__(
        self,
        scene: Scene,
        address: str,
        keys: ClientKeys | None = None,
        name: str = "actor",
        gains: ControlConfig | None = None,
    ) -> None:
        self.scene = scene
        super().__init__(address, keys, name, gains)
        self._painter: Painter | None = None

    def observe(self) -> RobotState:
        """Returns the newest measurement, and shows the arm there in the scene.

        Raises:
            RobotFault: The server has gone silent.
        """
        state = super().observe()
        qpos = self.scene.data.qpos
        qpos[:ARM], qpos[ARM : ARM + 2] = state.q, 0.5 * state.gripper_width
        mujoco.mj_step1(self.scene.model, self.scene.data)
        return state

    def stop(self) -> None:
        """Gives control back, upon which the arm holds; twice is once."""
        super().stop()
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def picture(self, camera: str, size: int) -> npt.NDArray[np.uint8]:
        """Draws the scene as it was observed last; no camera has seen it. Shape: (size, size, 3), RGB.

        Raises:
            RenderingUnavailable: No OpenGL on this machine.
        """
        if self._painter is None:
            self._painter = Painter(self.scene.model)
        return self._painter.picture(self.scene.data, camera, size, shadows=camera == "view")
