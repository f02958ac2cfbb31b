"""A camera of a wire twin: a process of the twin's own side draws the pictures, and this one takes them."""

import os
import socket
import subprocess
import sys
import time

from serl_servers.cameras.driver import CameraFault, Frame
from serl_suite.rig import Camera
from serl_suite.wire.camera_link import ReportLink
from serl_suite.wire.messages import WireError

__all__ = ["TwinCamera"]

EYE = "serl_envs.twins.eye"
START_S = 25.0
"""The model is compiled, and OpenGL found: two seconds, and ten where others keep all cores busy."""
END_S = 2.0


class TwinCamera:
    """Implements `CameraDriver`.

    Args:
        camera: As the rig has it; its serial is the camera's name in the twin's scene.
        scene: Where the twin shows its scene, tcp://HOST:1339.

    Raises:
        CameraFault: Nothing is drawn.
    """

    def __init__(self, camera: Camera, scene: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", EYE, scene, camera.serial, str(camera.width), str(camera.rate_hz),
                    str(theirs.fileno()),
                ],
                pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        self._link = ReportLink(ours)
        if not self._link.has_some(START_S):
            self.close()
            raise CameraFault(
                "stalled", f"the twin's picture is not drawn within {START_S:g} s; is the machine so busy?"
            )

    def read(self, timeout_s: float) -> Frame | None:
        """Waits for the next frame; None: there was none for so long.

        Raises:
            CameraFault: The twin has ended, or has no such camera.
        """
        deadline, newest = time.monotonic() + timeout_s, None
        while newest is None and (left_s := deadline - time.monotonic()) > 0:
            if self._link.has_some(left_s):
                newest = self._newest()
        return newest

    def close(self) -> None:
        """Ends the process; call once."""
        self._link.close()
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _newest(self) -> Frame | None:
        """Of those that have come as a whole.

        Raises:
            CameraFault: There will be no more.
        """
        newest = None
        try:
            for report, pixels in self._link.receive():
                if report.stamp is None:
                    raise CameraFault(report.fault, report.detail)
                newest = Frame(pixels, report.stamp.sequence, report.stamp.device_s, report.stamp.host_ns)
        except WireError as error:
            text = f"the process that draws the twin has ended ({error}); its output says why"
            raise CameraFault("unplugged", text) from error
        return newest
