"""Pictures of a scene without a screen: EGL, or OSMesa where that is not to be had."""

import importlib
import os
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from serl_suite.errors import SerlError

__all__ = ["Painter", "RenderingUnavailable"]

MAX_SIZE = 640
"""Side of the offscreen buffer; larger pictures are refused by MuJoCo."""


class RenderingUnavailable(SerlError):
    """No OpenGL without a screen on this machine."""


def _make_context(size: int) -> Any:  # noqa: ANN401 - MuJoCo's context classes have no common type
    """Returns MuJoCo's OpenGL context: of the kind in MUJOCO_GL if set, else EGL, else OSMesa.

    MuJoCo's own choice falls on GLFW, which needs a screen, and is made when it is first imported, too early to help.
    """
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    causes = []
    for kind in (wanted,) if wanted in ("egl", "osmesa", "glfw") else ("egl", "osmesa"):
        try:
            context = importlib.import_module(f"mujoco.{kind}").GLContext(size, size)
            context.make_current()
            return context
        except (ImportError, AttributeError, RuntimeError, OSError) as error:
            causes.append(f"{kind}: {error}")
    raise RenderingUnavailable(
        f"no OpenGL for pictures ({'; '.join(causes)}); install one with `apt-get install libegl1 "
        "libgl1-mesa-dri` (EGL) or `apt-get install libosmesa6` and MUJOCO_GL=osmesa"
    )


class Painter:
    """Draws a scene from its named cameras.

    Raises:
        RenderingUnavailable: Naming the packages to install.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._gl = _make_context(MAX_SIZE)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 50)
        self._option = mujoco.MjvOption()
        self._option.sitegroup[:] = 0

    def picture(self, data: mujoco.MjData, camera: str, size: int, *, shadows: bool) -> npt.NDArray[np.uint8]:
        """Returns the scene as the named camera sees it. Shape: (size, size, 3), RGB."""
        self._gl.make_current()
        view = mujoco.MjvCamera()
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, self._model.camera(camera).id
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, view, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = shadows
        rectangle = mujoco.MjrRect(0, 0, size, size)
        pixels = np.empty((size, size, 3), np.uint8)
        mujoco.mjr_render(rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(pixels, None, rectangle, self._context)
        return np.ascontiguousarray(pixels[::-1])

    def close(self) -> None:
        """Frees what OpenGL holds; call once."""
        self._gl.make_current()
        self._context.free()
        self._gl.free()
