"""Any other camera, through OpenCV and Video4Linux; or a video file that is played as if it were one."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from serl_servers.cameras.driver import CameraFault, Found, Frame
from serl_suite.rig import Camera

__all__ = ["OpenCVCamera", "find_v4l2"]

DEVICES = Path("/dev/v4l/by-id")
MANUAL, AUTOMATIC = 1.0, 3.0
"""V4L2_EXPOSURE_MANUAL and V4L2_EXPOSURE_APERTURE_PRIORITY, which is the automatic one of USB cameras."""
WAITED_NS = 10**10
"""A frame may have waited for so long in the kernel, whose stamp is in CLOCK_MONOTONIC, as ours; another clock's is
further off."""
SETTLE_S = 1.5
"""Automatic exposure and white balance have found their values by then."""


def find_v4l2(folder: Path = DEVICES) -> Iterator[Found]:
    """Yields the cameras that the kernel shows: those of video, by names that stay whatever else is plugged in."""
    for path in sorted(folder.glob("*-video-index0")):
        yield Found("v4l2", str(path), f"{path.resolve()}")


class OpenCVCamera:
    """Implements `CameraDriver`.

    Args:
        camera: As the rig has it; its serial is a device such as /dev/video0, or a video file.

    Raises:
        CameraFault: It is not there, may not be opened, or has no such mode or setting.
    """

    def __init__(self, camera: Camera) -> None:
        self._camera, path = camera, Path(camera.serial)
        if not path.exists():
            raise CameraFault(
                "missing", f"there is no {path}; plug it in, or correct the rig (serl camera list)"
            )
        if not os.access(path, os.R_OK):
            raise CameraFault(
                "missing", f"{path} may not be read by this user; install the udev rules, or join its group"
            )
        self._is_file = path.is_file()
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG if self._is_file else cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise CameraFault(
                "busy", f"{path} cannot be opened; end the program that has it, or correct the rig"
            )
        self._number, self._due = 0, time.monotonic()
        try:
            if not self._is_file:
                self._set_up()
            self._check_size()
        except CameraFault:
            self.close()
            raise

    def read(self, timeout_s: float) -> Frame | None:
        """Waits for the next frame; None: there was none for so long.

        Raises:
            CameraFault: The camera was unplugged, or the file is over.
        """
        if self._is_file:
            wait_s = self._due - time.monotonic()
            time.sleep(min(max(wait_s, 0.0), timeout_s))
            if wait_s > timeout_s:
                return None
            self._due = max(self._due + 1.0 / self._camera.rate_hz, time.monotonic())
        came, pixels = self._capture.read()  # a camera that gives nothing keeps OpenCV waiting for 10 s
        arrived_ns = time.monotonic_ns()
        if not came:
            raise self._over()
        self._number += 1
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        device_s = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) * 1e-3
        if not self._is_file and 0 <= arrived_ns - round(device_s * 1e9) < WAITED_NS:
            arrived_ns = round(device_s * 1e9)
        return Frame(np.asarray(pixels, np.uint8), self._number, device_s, arrived_ns)

    def close(self) -> None:
        """Lets the camera go; call once."""
        self._capture.release()

    def _over(self) -> CameraFault:
        serial = self._camera.serial
        if self._is_file:
            return CameraFault("unplugged", f"{serial} is over; it is played again")
        return CameraFault(
            "unplugged", f"{serial} gives no frames; plug it in again, it is opened by itself then"
        )

    def _set_up(self) -> None:
        camera, capture = self._camera, self._capture
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, camera.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, camera.height)
        capture.set(cv2.CAP_PROP_FPS, camera.rate_hz)
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, AUTOMATIC)
        capture.set(cv2.CAP_PROP_AUTO_WB, 1.0)
        if "lock" in (camera.exposure_ms, camera.white_balance_k):
            settled = time.monotonic() + SETTLE_S
            while time.monotonic() < settled and capture.grab():
                pass
        if camera.exposure_ms != "auto":
            self._lock("exposure_ms", cv2.CAP_PROP_AUTO_EXPOSURE, MANUAL, cv2.CAP_PROP_EXPOSURE, 10.0)
        if camera.white_balance_k != "auto":
            self._lock("white_balance_k", cv2.CAP_PROP_AUTO_WB, 0.0, cv2.CAP_PROP_WB_TEMPERATURE, 1.0)

    def _lock(self, name: str, automatic: int, manual: float, value: int, per_unit: float) -> None:
        """Exposure counts in 100 us there."""
        wish = getattr(self._camera, name)
        found = self._capture.get(value) if wish == "lock" else wish * per_unit
        if not (self._capture.set(automatic, manual) and self._capture.set(value, found)):
            raise CameraFault(
                "settings", f"{self._camera.serial} takes no {name} of {found / per_unit:g}; leave it at auto"
            )

    def _check_size(self) -> None:
        camera = self._camera
        width, height = (
            round(self._capture.get(kind)) for kind in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if (width, height) != (camera.width, camera.height):
            raise CameraFault(
                "resolution",
                f"{camera.serial} gives {width}x{height} and not {camera.width}x{camera.height}; correct width and "
                "height in the rig (v4l2-ctl --list-formats-ext shows the modes)",
            )
