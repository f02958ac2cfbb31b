"""An arm of metal doing a task: its robot server, the rig's cameras, and marks in the air where a task wants things."""

import mujoco
import numpy as np
import numpy.typing as npt

from serl_envs.remote import RemoteRobot
from serl_envs.remote_cameras import RemoteCameras
from serl_envs.remote_scene import RemoteScene
from serl_envs.robot import Array, RobotFault, RobotState, Setpoint
from serl_envs.twins.loop import ARM
from serl_envs.twins.rendering import Painter
from serl_envs.twins.scene import Scene
from serl_suite.control import ControlConfig
from serl_suite.wire.keys import ClientKeys

__all__ = ["RemoteArm"]

OVERVIEW = "view"
"""A picture for people, which is drawn wherever there are cameras."""


class RemoteArm(RemoteRobot):
    """Implements `SimulatedRobot` as far as an arm of metal can: what is placed in its scene is a mark, such as a goal,
    that nothing real corresponds to.

    A camera's fault is one of the robot's: it shows in the state, and is latched until the next reset, which waits for
    the camera. The arm is let go of, and holds.

    Args:
        scene: With the arm's model; without things that could move.
        address, keys, name, gains: As `RemoteRobot`.
        cameras: Of the rig; owned. None: it has none, and pictures of a twin's scene are drawn.

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
        cameras: RemoteCameras | None = None,
    ) -> None:
        self.scene, self.cameras = scene, cameras
        super().__init__(address, keys, name, gains)
        self._painter: Painter | None = None

    def observe(self) -> RobotState:
        """Returns the newest measurement, shows the arm there in the scene, and takes over the newest pictures.

        Raises:
            RobotFault: The server has gone silent.
        """
        state = super().observe()
        qpos = self.scene.data.qpos
        qpos[:ARM], qpos[ARM : ARM + 2] = state.q, 0.5 * state.gripper_width
        mujoco.mj_step1(self.scene.model, self.scene.data)
        if self.cameras is None:
            return state
        before = self.cameras.fault
        self.cameras.look()
        if self.cameras.fault is not None and before is None:
            self._client.release()
        blind = self.cameras.fault is not None
        return state._replace(fault=state.fault or self.cameras.fault, is_blind=blind)

    def command(self, setpoint: Setpoint, period_s: float) -> None:
        """As `RemoteRobot`.

        Raises:
            RobotFault: As there, or a camera's fault is latched.
        """
        if self.cameras is not None and self.cameras.fault is not None:
            raise RobotFault(self.cameras.detail)
        super().command(setpoint, period_s)

    def reset(self, position: Array, quaternion: Array, gripper_width: float) -> None:
        """As `RemoteRobot`, once the cameras see, and until they do.

        Raises:
            RobotFault: As there, or a camera does not see; names cause and remedy.
        """
        if self.cameras is not None:
            self.cameras.restore()
        super().reset(position, quaternion, gripper_width)
        if self.cameras is not None:  # the way there takes seconds, in which one may have gone
            self.cameras.restore()

    def stop(self) -> None:
        """Gives control back, upon which the arm holds; twice is once."""
        super().stop()
        if self.cameras is not None:
            self.cameras.close()
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def picture(self, camera: str, size: int) -> npt.NDArray[np.uint8]:
        """Returns what the rig's camera saw when the robot was observed last. The overview is drawn, and so is the
        scene of a twin whose rig lists no cameras: as it was then. Shape: (size, size, 3), RGB.

        Raises:
            RobotFault: There is no such camera, or it has shown nothing; names cause and remedy.
            RenderingUnavailable: No OpenGL on this machine.
        """
        if camera != OVERVIEW:
            if self.cameras is not None:
                return self.cameras.picture(camera, size)
            if not isinstance(self.scene, RemoteScene):
                raise RobotFault(
                    f"the rig lists no cameras, and {camera} is to be observed; add it (serl camera list shows what "
                    "is there)"
                )
        if self._painter is None:
            self._painter = Painter(self.scene.model)
        return self._painter.picture(self.scene.data, camera, size, shadows=camera == OVERVIEW)
