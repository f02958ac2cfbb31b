"""The server's end of a camera's process: starts it, keeps its newest pictures, and starts another where it hangs or
has died."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

import msgspec

from serl_suite.rig import Camera
from serl_suite.wire.camera_link import ReportLink
from serl_suite.wire.camera_messages import NEVER_S, STALE_S, Pixels, Sight, Stamp
from serl_suite.wire.messages import WireError

__all__ = ["Channel", "Shot"]

START_S = 60.0
"""From the start of the process until its first word."""
HUNG_S = 30.0
"""A process that hangs for so long is ended, and another started: a library that waits for a dead device. To open a
camera of metal takes some seconds."""
RESTART_S = 1.0
KEPT = 8
"""Pictures, to find those of several cameras that belong together."""
END_S, KILLED_S = 2.0, 0.2
"""How long a process has after it was asked to end, and killed. One that waits in the kernel for a dead device ends
later; the other cameras wait no longer."""

_log = logging.getLogger(__name__)


class Shot(NamedTuple):
    """A picture that has come."""

    stamp: Stamp
    size: int
    pixels: Pixels


class Channel:
    """One camera. Belongs to one thread.

    Args:
        camera: As the rig has it.
        scene: Where a wire twin shows its scene; empty: there is none.
    """

    def __init__(self, camera: Camera, scene: str) -> None:
        self.camera, self._scene = camera, scene
        self.shots: deque[Shot] = deque(maxlen=KEPT)
        """The newest last."""
        self._fault, self._detail = "starting", "it is being opened"
        self._logged = ""
        self._start()

    def fileno(self) -> int:
        """Readable when there is something to take."""
        return self._link.fileno()

    @property
    def has_ended(self) -> bool:
        """Whether there is no process now; another is started soon."""
        return self._ended_at is not None

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def take(self) -> bool:
        """Takes all that has come; whether there was a picture."""
        new = False
        if self.has_ended:
            return new
        try:
            for report, pixels in self._link.receive():
                self._heard_at = time.monotonic()
                if report.stamp is None:
                    self._fault, self._detail = report.fault, report.detail
                    continue
                self.shots.append(Shot(report.stamp, report.size, pixels))
                self._fault = self._detail = ""
                new = True
        except WireError as error:
            self._restart("died", f"its process has ended ({error}); another is started, its output says why")
        return new

    def look_after(self) -> None:
        """Ends a process that hangs, starts one in place of one that has ended, and logs faults as they come and go."""
        now = time.monotonic()
        if self._ended_at is not None:
            if now - self._ended_at > RESTART_S:
                self._start()
        elif now > self._heard_at + HUNG_S:
            self._restart(
                "hung", "its library hangs; its process is started again, else plug the camera in anew"
            )
        fault, detail = self.fault
        if fault != self._logged:
            if fault and fault != "starting":
                _log.warning("camera %s: %s: %s", self.camera.name, fault, detail)
            elif not fault:
                _log.info("camera %s: sees", self.camera.name)
            self._logged = fault

    @property
    def fault(self) -> tuple[str, str]:
        """Why the newest picture is not what the camera sees now; both empty where it is."""
        if self._fault or (self.shots and self._age_s(self.shots[-1]) <= STALE_S):
            return self._fault, self._detail
        return "stalled", "it sends nothing; it is opened anew, else plug it in anew"

    def sight(self, shot: Shot | None) -> Sight:
        """What a client is told with that picture."""
        fault, detail = self.fault
        name = self.camera.name
        if shot is None:
            return Sight(camera=name, stamp=Stamp(), size=0, age_s=NEVER_S, fault=fault, detail=detail)
        return Sight(
            camera=name, stamp=shot.stamp, size=shot.size, age_s=self._age_s(shot), fault=fault, detail=detail
        )

    def close(self) -> None:
        """Ends the process; twice is once."""
        self._link.close()
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._kill()

    @staticmethod
    def _age_s(shot: Shot) -> float:
        return (time.monotonic_ns() - shot.stamp.host_ns) * 1e-9

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        sequence = self.shots[-1].stamp.sequence if self.shots else 0
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "serl_servers.cameras.capture", str(theirs.fileno()), str(sequence),
                    self._scene, msgspec.json.encode(self.camera).decode(),
                ],
                pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        self._link = ReportLink(ours)
        self._ended_at: float | None = None
        self._heard_at = time.monotonic() + START_S - HUNG_S

    def _restart(self, fault: str, detail: str) -> None:
        """A moment later: a process that can't begin is not started all the time."""
        self._fault, self._detail = fault, detail
        self._kill()
        self._link.close()
        self._ended_at = time.monotonic()

    def _kill(self) -> None:
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(KILLED_S)
