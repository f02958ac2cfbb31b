"""The seam between a kind of camera and everything else."""

from typing import NamedTuple, Protocol

from serl_suite.errors import SerlError
from serl_suite.wire.camera_messages import Pixels

__all__ = ["CameraDriver", "CameraFault", "Found", "Frame"]


class CameraFault(SerlError):
    """A camera that shows nothing, or not what it should; the message names cause and remedy.

    Attributes:
        name: In one word, such as unplugged.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Frame(NamedTuple):
    """What a camera saw, as it came."""

    pixels: Pixels
    """Shape: (height, width, 3), RGB; the receiver's own."""
    number: int
    """Counts the camera's frames since it was opened, those that nobody saw included."""
    device_s: float
    """In the camera's own clock."""
    host_ns: int
    """CLOCK_MONOTONIC when it had arrived, at the earliest place that stamps it: the kernel or the twin, else here."""


class CameraDriver(Protocol):
    """An open camera. Belongs to one thread."""

    def read(self, timeout_s: float) -> Frame | None:
        """Waits for the next frame and returns the newest; None: there was none for so long.

        Raises:
            CameraFault: There will be none; close it.
        """

    def close(self) -> None:
        """Lets the camera go; call once."""


class Found(NamedTuple):
    """A camera that is plugged in."""

    driver: str
    serial: str
    """As a rig names it."""
    text: str
    """Model, connection."""
    usb: str = ""
    """Version of its connection, where it tells."""
