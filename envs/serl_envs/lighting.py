"""Other light and moved cameras, for a twin's scene as it is: how pictures of the same motions may come to look.

Nothing that moves is changed, so an episode done again action by action is the same one, seen differently.
"""

from typing import NamedTuple

import mujoco
import numpy as np
import numpy.typing as npt

from serl_envs.robot import Array
from serl_suite.control.rotations import quaternion_from_rotation_vector, quaternion_multiply

__all__ = ["SceneLook"]


class _Before(NamedTuple):
    """A model's own lights and cameras."""

    light: npt.NDArray[np.float32]
    """Diffuse, ambient and specular of each light. Shape: (3, lights, 3)"""
    headlight: npt.NDArray[np.float32]
    """The same of the light at the camera. Shape: (3, 3)"""
    position: Array
    """Of each camera in its body. Shape: (cameras, 3)"""
    quaternion: Array
    """wxyz, MuJoCo's order. Shape: (cameras, 4)"""


class SceneLook:
    """Changes a model's lights and cameras; each change is against how the model was built, not the last one.

    Args:
        model: Changed in place.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        head = model.vis.headlight
        self._before = _Before(
            np.stack([model.light_diffuse, model.light_ambient, model.light_specular]),
            np.stack([head.diffuse, head.ambient, head.specular]),
            model.cam_pos.copy(),
            model.cam_quat.copy(),
        )

    def change(
        self,
        *,
        brightness: float = 1.0,
        warmth: float = 0.0,
        camera_m: float = 0.0,
        camera_rad: float = 0.0,
        seed: float = 0,
    ) -> None:
        """Sets the look; without arguments, as the model was built.

        Args:
            brightness: Factor on all light.
            warmth: Red more and blue less by this share; below 0 the other way round.
            camera_m: How far each camera is moved, in a direction of its own [m].
            camera_rad: How far each camera is turned, about an axis of its own [rad].
            seed: Of directions and axes.
        """
        model, before = self._model, self._before
        colour = brightness * np.array([1.0 + warmth, 1.0, 1.0 - warmth])
        model.light_diffuse[:], model.light_ambient[:], model.light_specular[:] = before.light * colour
        head = model.vis.headlight
        head.diffuse[:], head.ambient[:], head.specular[:] = before.headlight * colour
        rng = np.random.default_rng(int(seed))
        for camera in range(model.ncam):
            model.cam_pos[camera] = before.position[camera] + camera_m * _direction(rng)
            turn = quaternion_from_rotation_vector(camera_rad * _direction(rng))
            w, x, y, z = before.quaternion[camera]
            model.cam_quat[camera] = quaternion_multiply(np.array([x, y, z, w]), turn)[[3, 0, 1, 2]]


def _direction(rng: np.random.Generator) -> Array:
    vector = rng.standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector), np.float64)
