"""What is known of a camera's lens, as a file."""

import math
from pathlib import Path

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from serl_suite.errors import SerlError
from serl_suite.rig import Camera

__all__ = ["BadCalibration", "Calibration", "read_calibration", "write_calibration"]

WORST_RMS = 1.0
"""[pixels]: above that, the board was not flat, or the pictures were blurred."""

Array = npt.NDArray[np.float64]
Map = npt.NDArray[np.float32]
Four = tuple[float, float, float, float]
Five = tuple[float, float, float, float, float]


class BadCalibration(SerlError, ValueError):
    """A calibration that cannot be used; says which file, and why."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pinhole with Brown and Conrady's distortion, as OpenCV has it."""

    serial: str
    """Of the camera."""
    width: int
    """Of its frames [pixels]: it counts for this resolution only."""
    height: int
    intrinsics: Four
    """Focal lengths and centre: fx, fy, cx, cy [pixels]."""
    distortion: Five
    """k1, k2, p1, p2, k3."""
    rms_px: float
    """How far the board's corners were, on average, from where this puts them."""
    views: int
    """Pictures of the board that it was found from."""

    def __post_init__(self) -> None:
        fx, fy, cx, cy = self.intrinsics
        if not all(map(math.isfinite, (*self.intrinsics, *self.distortion, self.rms_px))):
            raise BadCalibration("a value is not finite; calibrate again")
        if min(fx, fy) <= 0 or not (0 < cx < self.width and 0 < cy < self.height):
            raise BadCalibration(
                f"focal lengths {fx:g}, {fy:g} and centre ({cx:g}, {cy:g}) are of no camera of "
                f"{self.width}x{self.height}; calibrate again"
            )
        if not 0 <= self.rms_px <= WORST_RMS:
            raise BadCalibration(
                f"corners are {self.rms_px:g} pixels off, more than {WORST_RMS:g}: a bent board, blurred pictures, or "
                "wrong counts of its squares; calibrate again"
            )

    @property
    def matrix(self) -> Array:
        """Shape: (3, 3)."""
        fx, fy, cx, cy = self.intrinsics
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    def straightening(self) -> tuple[Map, Map]:
        """Returns where a straight picture's pixels are in the frame: columns, rows. Shapes: (height, width)."""
        size = (self.width, self.height)
        x, y = cv2.initUndistortRectifyMap(
            self.matrix, np.array(self.distortion), np.eye(3), self.matrix, size, cv2.CV_32FC1
        )
        return np.asarray(x, np.float32), np.asarray(y, np.float32)


def read_calibration(path: Path, camera: Camera | None = None) -> Calibration:
    """Reads a calibration, and checks that it is this camera's.

    Raises:
        BadCalibration: It cannot be read, no camera can have it, or this one has another serial or resolution.
    """
    try:
        calibration = msgspec.yaml.decode(path.read_bytes(), type=Calibration)
    except OSError as error:
        raise BadCalibration(
            f"the calibration {path} cannot be read: {error.strerror}; make it: serl camera calibrate"
        ) from error
    except (msgspec.DecodeError, ValueError, AttributeError) as error:  # dates, numbers that are none
        raise BadCalibration(f"{path}: {error}") from error
    if camera is not None:
        mine, its = (camera.serial, camera.width, camera.height), (
            calibration.serial, calibration.width, calibration.height,
        )  # fmt: skip
        if mine != its:
            raise BadCalibration(
                f"{path} is of camera {its[0]} at {its[1]}x{its[2]}, and {camera.name} is {mine[0]} at "
                f"{mine[1]}x{mine[2]}; calibrate it: serl camera calibrate"
            )
    return calibration


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Writes it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(path.suffix + ".new")
    beside.write_bytes(msgspec.yaml.encode(calibration))
    beside.replace(path)
