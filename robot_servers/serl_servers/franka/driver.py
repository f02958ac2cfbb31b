"""The hardware side of the control loop."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from serl_suite.errors import SerlError

__all__ = [
    "CONNECTION_LOST", "ArmStopped", "Array", "Driver", "DriverError", "Load", "Measurement", "make_measurement",
]  # fmt: skip

Array = npt.NDArray[np.float64]

CONNECTION_LOST = "connection_lost"
"""The one fault after which a driver is of no more use."""


class DriverError(SerlError):
    """The arm cannot be connected to, or not used as asked; the message says what to do."""


class ArmStopped(SerlError):
    """The arm ended the motion by itself.

    Attributes:
        fault: Its name for it, lower case with underscores.
    """

    def __init__(self, fault: str, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


class Load(NamedTuple):
    """What the gripper carries, beyond the gripper itself."""

    mass: float
    """[kg]"""
    com: Array
    """In the flange's frame [m], (3,)."""
    inertia: Array
    """About it [kg m^2], (9,)."""


class Measurement(NamedTuple):
    """One millisecond of the arm. The driver writes the arrays anew with each read. Base frame, linear rows first."""

    time: Array
    """Robot time [s], (1,)."""
    q: Array
    dq: Array
    position: Array
    """Of the TCP, (3,)."""
    quaternion: Array
    tau_echoed: Array
    """The torque that the arm reports to hold, without gravity, (7,)."""
    tau_external: Array
    """The arm's estimate of what acts on it from outside, (7,)."""
    jacobian: Array
    """Of the TCP, (6, 7)."""
    mass: Array
    """(7, 7) [kg m^2]"""
    success_rate: Array
    """Share of the last commands that reached the arm in time, (1,)."""


def make_measurement() -> Measurement:
    return Measurement(
        np.zeros(1), np.zeros(7), np.zeros(7), np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(7), np.zeros(7),
        np.zeros((6, 7)), np.eye(7), np.zeros(1),
    )  # fmt: skip


class Driver(Protocol):
    """An arm under torque control at 1 kHz. Between `start` and `finish`, read and write take turns."""

    def start(self) -> None:
        """Begins a motion. Raises: ArmStopped."""

    def read(self) -> Measurement:
        """Waits for the arm's next state and returns it. Raises: ArmStopped."""

    def write(self, tau: Array) -> None:
        """Answers the state that was read with a torque (without gravity), (7,). Raises: ArmStopped."""

    def finish(self, tau: Array) -> None:
        """Answers it with the motion's last torque; the arm then stands under its own control. Raises: ArmStopped."""

    def recover(self) -> None:
        """Clears the arm's own error. Raises: ArmStopped."""

    def set_load(self, load: Load) -> None:
        """Tells the arm what it carries; not in motion. Raises: ArmStopped."""

    def close(self) -> None:
        """Lets go of the arm, ending a motion on the way."""
