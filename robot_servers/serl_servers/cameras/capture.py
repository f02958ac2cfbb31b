"""A camera's process: opens it, passes on what it sees, and opens it again whenever it was gone.

    python -m serl_servers.cameras.capture FD SEQUENCE SCENE CAMERA

FD is the inherited socket that reports and pictures are written to, SEQUENCE the last picture's number, SCENE the
address of a wire twin's scene or nothing, CAMERA the rig's entry as JSON. It ends with its parent. A library that hangs
hangs here, and nobody else.
"""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import msgspec

from serl_servers.cameras.calibration import read_calibration
from serl_servers.cameras.driver import CameraDriver, CameraFault
from serl_servers.cameras.picture import Eyesight, Shaper
from serl_servers.franka.realtime import end_with_parent
from serl_suite.rig import Camera
from serl_suite.wire.camera_link import LinkClosed, ReportLink
from serl_suite.wire.camera_messages import STALE_S, Pixels, Report, Stamp

__all__ = ["Capture", "main", "open_camera"]

REOPEN_S = 1.0
"""Between two tries to open a camera."""
GIVE_UP_S = 2.0
"""A camera that has shown nothing new for so long is closed and opened anew, which helps more often than not."""
READ_S = 0.1
BEAT_S = 0.25
"""The server hears from this process at least so often, unless it hangs."""

Send = Callable[[Report, Pixels | None], None]


def open_camera(camera: Camera, scene: str) -> CameraDriver:
    """Opens a camera of any kind; the libraries of the others are not loaded.

    Raises:
        CameraFault: It is not there, or not as the rig says; names cause and remedy.
    """
    if camera.driver == "realsense":
        from serl_servers.cameras.realsense import RealSense

        return RealSense(camera)
    if camera.driver == "v4l2":
        from serl_servers.cameras.opencv import OpenCVCamera

        return OpenCVCamera(camera)
    from serl_servers.cameras.twin import TwinCamera

    return TwinCamera(camera, scene)


class Capture:
    """Passes on a camera's pictures, one opening after another.

    Args:
        camera: As the rig has it.
        open_driver: Opens it; raises `CameraFault`.
        send: Where reports and pictures go.
        sequence: Of the last picture before, which the next ones count on from.

    Raises:
        BadCalibration: Its calibration is another camera's, or none.
    """

    def __init__(
        self, camera: Camera, open_driver: Callable[[], CameraDriver], send: Send, sequence: int = 0
    ) -> None:
        self._open, self._send = open_driver, send
        calibration = (
            None if camera.calibration is None else read_calibration(Path(camera.calibration), camera)
        )
        self._shaper, self._eyesight = Shaper(camera, calibration), Eyesight()
        self._base = 0
        """What the camera's own count, which begins anew with each opening, is added to."""
        self._sequence = sequence
        self._said_at = 0.0
        self._fresh_at = -STALE_S
        self._fault = ("starting", "it is being opened")

    def open_and_pump(self) -> None:
        """Opens the camera, and passes on pictures until it shows no more; then says why, and waits."""
        try:
            driver = self._open()
            try:
                self._base = self._sequence
                self._pump(driver)
            finally:
                driver.close()
        except CameraFault as fault:
            self._object(fault.name, str(fault))
        until = time.monotonic() + REOPEN_S
        while time.monotonic() < until:
            self._say()
            time.sleep(0.5 * BEAT_S)

    def _pump(self, driver: CameraDriver) -> None:
        """Returns once nothing new has been seen for too long.

        Raises:
            CameraFault: The camera has gone.
        """
        opened_at = time.monotonic()
        while time.monotonic() - max(self._fresh_at, opened_at) < GIVE_UP_S:
            frame = driver.read(READ_S)
            if frame is None:
                self._object(
                    "stalled", "it is there and sends nothing; it is opened anew, else plug it in anew"
                )
                continue
            picture = self._shaper.shape(frame.pixels)
            objection = self._eyesight.objection(frame.pixels, picture)
            if objection is not None:
                self._object(*objection)
                continue
            # the camera may count from 0
            self._sequence = max(self._sequence + 1, self._base + frame.number)
            self._fresh_at, self._fault = time.monotonic(), ("", "")
            stamp = Stamp(sequence=self._sequence, device_s=frame.device_s, host_ns=frame.host_ns)
            self._send(Report(stamp=stamp, size=picture.shape[0]), picture)
            self._said_at = self._fresh_at

    def _object(self, fault: str, detail: str) -> None:
        """There is nothing new; a camera that has just shown something is let off for a moment."""
        self._fault = (fault, detail)
        self._say()

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._said_at > BEAT_S and now - self._fresh_at > STALE_S:
            self._said_at = now
            self._send(Report(fault=self._fault[0], detail=self._fault[1]), None)


def main(arguments: list[str]) -> int:
    """Runs until its parent has gone."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s camera: %(message)s")
    fd, sequence, scene, text = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the camera is let go on the way out
    end_with_parent(signal.SIGKILL)
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "1")
    cv2.setNumThreads(1)  # to wake others up for a millisecond's work takes longer, and cores are few
    camera = msgspec.json.decode(text, type=Camera)
    link = ReportLink(socket.socket(fileno=int(fd)))
    capture = Capture(camera, lambda: open_camera(camera, scene), link.send, int(sequence))
    with suppress(LinkClosed):
        while True:
            capture.open_and_pump()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
