"""A film of what the twin did, drawn when it ends: drawing while it runs would cost the arm its milliseconds."""

from pathlib import Path

import mujoco

from serl_envs.robot import Array
from serl_envs.twins.fci.plant import Plant
from serl_envs.twins.rendering import Painter
from serl_suite.nodes.video import Film

__all__ = ["Filming"]

RATE_HZ = 25
PERIOD_TICKS = 1000 // RATE_HZ
SIZE = 480


class Filming:
    """Keeps a pose of everything 25 times a second of arm time.

    Args:
        plant: Read after every tick.
    """

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._ticks = 0
        self._poses: list[tuple[float, Array]] = []

    def add(self) -> None:
        """Takes note of a tick."""
        if self._ticks % PERIOD_TICKS == 0:
            self._poses.append((self._plant.time_s, self._plant.data.qpos.copy()))
        self._ticks += 1

    def save(self, path: Path) -> None:
        """Draws the film, as MP4 and, its beginning, as GIF beside it.

        Raises:
            RenderingUnavailable: No OpenGL on this machine.
        """
        model, data = self._plant.model, mujoco.MjData(self._plant.model)
        painter = Painter(model)
        with Film(path, path.with_suffix(".gif"), RATE_HZ) as film:
            for time_s, pose in self._poses:
                data.qpos[:] = pose
                mujoco.mj_forward(model, data)
                film.add(painter.picture(data, "view", SIZE, shadows=True), "wire twin", f"{time_s:.1f} s")
        painter.close()
