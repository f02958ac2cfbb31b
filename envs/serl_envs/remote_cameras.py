"""The cameras of a rig, as an environment observes them: nothing that is not what they see now passes for it."""

import logging
import time

import numpy as np
import numpy.typing as npt

from serl_envs.robot import RobotFault
from serl_suite.rig import Rig
from serl_suite.wire.camera_client import CameraClient, CamerasUnreachable
from serl_suite.wire.keys import ClientKeys
from serl_suite.wire.messages import WireError

__all__ = ["RemoteCameras"]

RETURN_S = 10.0
"""How long a reset waits for a camera that is being opened again."""
LOOK_S = 0.1
NONSENSE = "camera_server_nonsense"
"""The fault where what answers is no camera server of this version."""

_log = logging.getLogger(__name__)


class RemoteCameras:
    """A client of the rig's camera server. Connects when a picture is asked for first, so that whoever observes none
    needs no server. Belongs to one thread.

    A fault of any camera that was asked for is latched until `restore`: the pictures of then are shown on, and are not
    to be learned from.

    Args:
        address: Of the camera server.
        names: Of the cameras that the rig lists.
        keys: Needed where the server is on another machine.
        rig: The rig's file, for messages.
    """

    def __init__(
        self, address: str, names: tuple[str, ...], keys: ClientKeys | None = None, rig: str = "RIG"
    ) -> None:
        self._address, self.names, self._keys, self._rig = address, names, keys, rig
        self._client: CameraClient | None = None
        self._watched: list[str] = []
        self.fault: str | None = None
        """The latched one, such as camera_wrist_unplugged."""
        self.detail = ""
        """Its cause and remedy."""

    @classmethod
    def of_rig(cls, rig: Rig, keys: ClientKeys | None) -> "RemoteCameras | None":
        """Returns the rig's cameras; None where it lists none."""
        if not rig.cameras:
            return None
        return cls(rig.camera_server, tuple(camera.name for camera in rig.cameras), keys, rig.source)

    @property
    def skew_s(self) -> float:
        """Between the first and the last arrival among the pictures."""
        return 0.0 if self._client is None else self._client.skew_s

    @property
    def ages_s(self) -> dict[str, float]:
        """How old each observed picture is by now, at most."""
        return {} if self._client is None else {name: self._client.age_s(name) for name in self._watched}

    def look(self) -> None:
        """Takes over the newest pictures, unless a fault is latched; takes 20 ms at most, 250 ms after a long pause."""
        if self._client is None or self.fault is not None:
            return
        try:
            self._client.look()
        except WireError as error:
            self.fault, self.detail = NONSENSE, self._nonsense(error)
            _log.warning("%s", self.detail)
            return
        self._judge(self._client)

    def picture(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        """Returns what was seen last. Shape: (size, size, 3), RGB.

        Raises:
            RobotFault: The rig has no such camera, its picture is smaller, it has a fault, or there is no server.
        """
        if name not in self.names:
            raise RobotFault(f"{self._rig} has no camera {name} but {', '.join(self.names)}; correct the rig")
        if self._client is None:
            self._client = self._connect()
        if name not in self._watched:
            self._watched.append(name)
            if self.fault is None:
                self.restore()
        pixels = self._client.picture(name)
        side = len(pixels)
        if side < size:
            raise RobotFault(
                f"camera {name} is served as {side}x{side}, and {size}x{size} is observed; set its size in {self._rig} "
                "and start the camera server again"
            )
        return pixels.copy() if side == size else _smaller(pixels, size)

    def restore(self) -> None:
        """Clears the fault once every observed camera sees again; they are given a while for that.

        Raises:
            RobotFault: One does not; names cause and remedy.
        """
        if not self._watched:
            return
        deadline = time.monotonic() + RETURN_S
        while True:
            if self.fault == NONSENSE:
                self.close()
            if self._client is None:
                self._client = self._connect()
            self.fault = None
            self.look()
            if self.fault is None:
                return
            if time.monotonic() > deadline:
                raise RobotFault(self.detail)
            time.sleep(LOOK_S)

    def close(self) -> None:
        """Leaves; twice is once."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _judge(self, client: CameraClient) -> None:
        for name in self._watched:
            if name not in client.names:
                self.fault = NONSENSE
                self.detail = f"the camera server at {self._address} has no camera {name} any more"
                _log.warning("%s", self.detail)
                return
            fault, detail = client.fault(name)
            if fault:
                self.fault, self.detail = f"camera_{name}_{fault}", f"camera {name}: {fault}: {detail}"
                _log.warning("%s", self.detail)
                return

    def _nonsense(self, error: WireError) -> str:
        return f"what answers at {self._address} is no camera server of this version ({error})"

    def _connect(self) -> CameraClient:
        start = f"serl camera serve --rig {self._rig}"
        try:
            client = CameraClient(self._address, self._keys)
        except CamerasUnreachable as error:
            raise RobotFault(f"no camera server answers at {self._address}; start it: {start}") from error
        except WireError as error:
            raise RobotFault(f"{self._nonsense(error)}; start it: {start}") from error
        missing = [name for name in self.names if name not in client.names]
        if missing:
            client.close()
            raise RobotFault(
                f"the camera server at {self._address} has no {', '.join(missing)} but {', '.join(client.names)}; it "
                f"was started with another rig: {start}"
            )
        return client


def _smaller(pixels: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Shapes: (side, side, 3) -> (size, size, 3)."""
    import cv2

    return np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
