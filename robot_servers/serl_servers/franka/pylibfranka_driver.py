"""The FR3 through pylibfranka. It never releases the GIL: nothing else in its process can be on time."""

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from serl_hardware.franka import fr3

from serl_servers.franka.driver import (
    CONNECTION_LOST,
    ArmStopped,
    Array,
    DriverError,
    Load,
    Measurement,
    make_measurement,
)
from serl_suite.control.rotations import quaternion_from_matrix

if TYPE_CHECKING:
    from pylibfranka import ActiveControlBase

__all__ = ["PylibfrankaDriver"]

_BARE_NETWORK_ERRORS = ("Net Exception", "Connection refused", "I/O error")
_OTHER_VERSION = "Incompatible library version"
_ERRORS = re.compile(r"\[([a-z_\", ]+)\]")


class PylibfrankaDriver:
    """Implements `Driver`.

    Args:
        ip: The arm's address.
        reflex_force_n: Threshold of its collision reflex, for forces [N] and joint torques [N m].

    Raises:
        DriverError: pylibfranka is not installed, or the arm does not answer, or speaks another version.
    """

    def __init__(self, ip: str, reflex_force_n: float) -> None:
        try:
            import pylibfranka
        except ImportError as error:
            raise DriverError(
                f"the arm is reached through pylibfranka, which cannot be imported ({error}); install it with "
                "`pip install 'serl-suite[franka]'`"
            ) from error
        self._library = pylibfranka
        # RuntimeError: most of its own errors, and those of the network that it passes on bare
        self._errors = (pylibfranka.FrankaException, RuntimeError)
        self._motion: ActiveControlBase | None = None
        self._measured = make_measurement()
        self._turned = np.zeros((3, 3))
        # libfranka's model knows the links and not the motors' rotors, which the joints have to turn as well
        self._rotors = fr3().armature * np.eye(7)
        try:
            self._robot = pylibfranka.Robot(ip, pylibfranka.RealtimeConfig.kIgnore)
            self._model = self._robot.load_model()
            torque, force = [reflex_force_n] * 7, [reflex_force_n] * 6
            self._robot.set_collision_behavior(torque, torque, force, force)
        except self._errors as error:
            if _OTHER_VERSION in str(error):
                raise DriverError(f"the arm at {ip} speaks another version of FCI: {error}") from error
            raise DriverError(
                f"no arm at {ip}: {error}. Check address and cable; in Desk, unlock the joints and activate FCI"
            ) from error

    def start(self) -> None:
        """Begins torque control.

        Raises:
            ArmStopped: The arm refuses, or is gone.
        """
        try:
            self._motion = self._robot.start_torque_control()
        except self._errors as error:
            raise self._stopped(error) from error

    def read(self) -> Measurement:
        """Waits for the arm's next state; the same arrays each time.

        Raises:
            ArmStopped: It has stopped, or is gone.
        """
        try:
            state = self._motion.readOnce()[0] if self._motion is not None else self._robot.read_once()
        except self._errors as error:
            raise self._stopped(error) from error
        m, pose = self._measured, state.O_T_EE
        m.time[0] = state.time.to_sec()
        m.q[:], m.dq[:] = state.q, state.dq
        m.position[:] = pose[12:15]
        for j in range(3):
            self._turned[:, j] = pose[4 * j : 4 * j + 3]
        m.quaternion[:] = quaternion_from_matrix(self._turned)
        m.tau_echoed[:] = state.tau_J_d
        # what the arm calls external torques is what it exerts on its surroundings, not what they exert on it
        np.negative(state.tau_ext_hat_filtered, out=m.tau_external)
        m.jacobian.T[:] = np.array(self._model.zero_jacobian(state)).reshape(7, 6)
        np.add(np.array(self._model.mass(state)).reshape(7, 7), self._rotors, out=m.mass)
        m.success_rate[0] = state.control_command_success_rate
        return m

    def write(self, tau: Array) -> None:
        self._send(tau, finished=False)

    def finish(self, tau: Array) -> None:
        self._send(tau, finished=True)
        self._motion = None

    def recover(self) -> None:
        self._motion = None
        try:
            self._robot.automatic_error_recovery()
        except self._errors as error:
            raise self._stopped(error) from error

    def set_load(self, load: Load) -> None:
        try:
            self._robot.set_load(load.mass, load.com.tolist(), load.inertia.tolist())
        except self._errors as error:
            raise self._stopped(error) from error

    def close(self) -> None:
        self._motion = None
        with suppress(*self._errors):
            self._robot.stop()

    def _send(self, tau: Array, *, finished: bool) -> None:
        command = self._library.Torques(tau.tolist())
        command.motion_finished = finished
        assert self._motion is not None
        try:
            self._motion.writeOnce(command)
        except self._errors as error:
            raise self._stopped(error) from error

    def _stopped(self, error: Exception) -> ArmStopped:
        self._motion = None
        named = _ERRORS.search(str(error))
        if named:
            fault = named.group(1).split(",")[0].strip(' "')
        elif isinstance(error, self._library.NetworkException) or str(error) in _BARE_NETWORK_ERRORS:
            fault = CONNECTION_LOST
        else:
            fault = "arm_refused"
        return ArmStopped(fault, str(error))
