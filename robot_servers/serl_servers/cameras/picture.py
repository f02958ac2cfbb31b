"""From a camera's frames to pictures: the lens straightened, the square cut out, its size changed; and whether there is
anything new to see in them."""

from collections import deque

import cv2
import numpy as np

from serl_servers.cameras.calibration import Calibration
from serl_servers.cameras.driver import CameraFault
from serl_suite.rig import Camera
from serl_suite.wire.camera_messages import Pixels

__all__ = ["Eyesight", "Shaper"]

DARK_LEVEL = 16
"""Of 255: what a sensor makes of no light stays below."""
LIT_SHARE = 0.01
"""Of a picture's values that are above it, where there is any light."""
RING = 4
"""A driver that hangs may hand out its few buffers again and again."""


class Shaper:
    """Makes the rig's square picture of a frame.

    Args:
        camera: As the rig has it.
        calibration: Of its lens; None: it stays as it is.
    """

    def __init__(self, camera: Camera, calibration: Calibration | None) -> None:
        self._camera = camera
        self._maps = None if calibration is None else calibration.straightening()

    def shape(self, pixels: Pixels) -> Pixels:
        """Returns the picture. Shapes: (height, width, 3) -> (size, size, 3).

        Raises:
            CameraFault: The frame is none of the size that the rig says.
        """
        camera = self._camera
        if pixels.shape != (camera.height, camera.width, 3):
            height, width = pixels.shape[:2]
            raise CameraFault(
                "resolution",
                f"{camera.serial} gives {width}x{height} and not {camera.width}x{camera.height}; correct width and "
                "height in the rig",
            )
        frame = pixels
        if self._maps is not None:
            frame = np.asarray(cv2.remap(frame, *self._maps, cv2.INTER_LINEAR), np.uint8)
        x, y, side = camera.square
        frame = frame[y : y + side, x : x + side]
        return _smaller(frame, camera.size)


def _smaller(square: Pixels, size: int) -> Pixels:
    """Halves it, each pixel the mean of four, as often as that goes; the rest, less than a half, bilinearly. The mean
    over any area at once takes OpenCV ten times as long. Shapes: (side, side, 3) -> (size, size, 3)."""
    while (half := len(square) // 2) >= size:
        square = np.asarray(cv2.resize(square, (half, half), interpolation=cv2.INTER_AREA), np.uint8)
    if len(square) != size:
        square = np.asarray(cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.ascontiguousarray(square)


class Eyesight:
    """Tells a new view from none. A sensor has noise, so two frames that are the same to the last bit are one frame."""

    def __init__(self) -> None:
        self._last: deque[bytes] = deque(maxlen=RING)

    def objection(self, frame: Pixels, picture: Pixels) -> tuple[str, str] | None:
        """Returns why this shows nothing new, fault and remedy; None: it does.

        Args:
            frame: As it came.
            picture: Made of it.
        """
        content = frame.tobytes()
        seen_before = content in self._last
        self._last.append(content)
        if np.count_nonzero(picture > DARK_LEVEL) < LIT_SHARE * picture.size:
            return (
                "black",
                "its pictures are black; take the cap off, switch the light on, or raise exposure_ms in the rig",
            )
        if seen_before:
            return (
                "frozen",
                "it sends the same picture again and again; it is opened anew, else plug it in anew, or another cable",
            )
        return None
