"""The state packet, filled from what the arm measures, wants and estimates."""

from collections.abc import Sequence

import numpy as np
from serl_hardware.franka.model import TIMESTEP_S

from serl_envs.robot import Array
from serl_envs.twins.fci.arm_packets import STATE, Error
from serl_envs.twins.fci.generators import Reference
from serl_envs.twins.fci.kinematics import frame_jacobian, frame_pose, to_wire, tool_inertia
from serl_envs.twins.fci.observer import external_wrench
from serl_envs.twins.fci.plant import GRAVITY, Plant
from serl_envs.twins.fci.settings import Settings
from serl_suite.control.compiled import compiled

__all__ = ["Telemetry"]

ACCELERATING = 0.1
"""[rad/s^2] of the desired motion: beyond it the thresholds for acceleration hold."""


class Telemetry:
    """Owns the packet.

    Args:
        plant: What is measured.
        settings: Frames, load and thresholds.
    """

    def __init__(self, plant: Plant, settings: Settings) -> None:
        self.packet = np.zeros((), STATE)
        self._plant, self._settings = plant, settings
        self._put = {name: self.packet[name] for name in STATE.names or ()}
        self._put["message_id"][...] = self._number = 1
        self._errors: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
        self._put["tau_J"][:] = plant.gravity
        self._put["O_ddP_O"][:] = 0.0, 0.0, -GRAVITY
        mass, com, inertia = tool_inertia(plant.model, plant.data)
        self._put["m_ee"][:], self._put["F_x_Cee"][:], self._put["I_ee"][:] = mass, com, inertia.ravel()
        self.write_settings()

    def write_settings(self) -> None:
        """Takes over frames and load."""
        put, settings = self._put, self._settings
        put["F_T_NE"][:] = to_wire(settings.flange_to_nominal)
        put["NE_T_EE"][:] = to_wire(settings.nominal_to_tool)
        put["F_T_EE"][:] = to_wire(settings.flange_to_tool)
        put["EE_T_K"][:] = to_wire(settings.tool_to_stiffness)
        put["m_load"][:], put["F_x_Cload"][:] = settings.load_mass, settings.load_com
        put["I_load"][:] = settings.load_inertia

    def write_errors(self, current: Sequence[int], reason: Sequence[int]) -> None:
        """Takes over the indices of the current errors and of those that ended the last motion."""
        errors = tuple(current), tuple(reason)
        if errors == self._errors:
            return
        self._errors = errors
        for name, indices in (("errors", current), ("reflex_reason", reason)):
            self._put[name][:] = False
            self._put[name][list(indices)] = True

    def write_modes(self, robot: int, generator: int, controller: int) -> None:
        """Takes over what the arm is doing."""
        put = self._put
        put["robot_mode"][...] = robot
        put["motion_generator_mode"][...], put["controller_mode"][...] = generator, controller

    def write_torques(self, tau: Array, tau_j: Array, success_rate: float) -> None:
        """Takes over the desired torque without gravity, the motors' own, and the share of answered packets."""
        put = self._put
        put["tau_J_d"][:] = tau
        put["dtau_J"][:] = (tau_j - put["tau_J"]) / TIMESTEP_S
        put["tau_J"][:] = tau_j
        put["control_command_success_rate"][...] = success_rate

    def write_motion(self, desired: Reference | None) -> None:
        """Takes over what is measured and what is desired; None where nothing is, so that both are the same."""
        put, plant = self._put, self._plant
        q, dq = plant.q, plant.dq
        pose = to_wire(frame_pose(plant.model, plant.data, self._settings.flange_to_tool))
        put["O_T_EE"][:] = pose
        put["q"][:] = put["theta"][:] = q
        put["dq"][:] = put["dtheta"][:] = dq
        put["elbow"][:] = _elbow(q)
        if desired is None:
            put["q_d"][:], put["O_T_EE_d"][:], put["O_T_EE_c"][:] = q, pose, pose
            put["elbow_d"][:] = put["elbow_c"][:] = put["elbow"]
            for name in ("dq_d", "ddq_d", "O_dP_EE_d", "O_dP_EE_c", "O_ddP_EE_c"):
                put[name][:] = 0.0
            return
        put["q_d"][:], put["dq_d"][:], put["ddq_d"][:] = desired.q, desired.dq, desired.ddq
        put["O_T_EE_d"][:] = put["O_T_EE_c"][:] = to_wire(desired.pose)
        put["O_dP_EE_d"][:] = put["O_dP_EE_c"][:] = desired.twist
        put["O_ddP_EE_c"][:] = desired.acceleration
        put["elbow_d"][:] = put["elbow_c"][:] = _elbow(desired.q)

    def write_contacts(self, external_torque: Array) -> Error | None:
        """Takes over the torques that the surroundings exert, (7,) [N m]; returns what a collision sets off.

        The packet has them with the arm's sign: what it exerts on its surroundings.
        """
        put, plant, settings = self._put, self._plant, self._settings
        torque = -external_torque
        frame = frame_pose(plant.model, plant.data, settings.flange_to_stiffness)
        wrench = external_wrench(torque, frame_jacobian(plant.data, frame[:3, 3]))
        put["tau_ext_hat_filtered"][:], put["O_F_ext_hat_K"][:] = torque, wrench
        _turn_back(frame, wrench, put["K_F_ext_hat_K"])
        accelerating = bool(np.abs(put["ddq_d"]).max() > ACCELERATING)
        lower_torque, lower_force = settings.thresholds.contact(accelerating=accelerating)
        upper_torque, upper_force = settings.thresholds.collision(accelerating=accelerating)
        _mark(torque, lower_torque, put["joint_contact"])
        _mark(wrench, lower_force, put["cartesian_contact"])
        joints = _mark(torque, upper_torque, put["joint_collision"])
        axes = _mark(wrench, upper_force, put["cartesian_collision"])
        if joints:
            return Error.JOINT_REFLEX
        return Error.CARTESIAN_REFLEX if axes else None

    def advance(self) -> None:
        """Lets the packet's clock go on by a millisecond."""
        self._number += 1
        self._put["message_id"][...] = self._number


@compiled
def _mark(values: Array, threshold: Array, flags: Array) -> bool:
    """Writes which are beyond their thresholds; returns whether any is."""
    found = False
    for i in range(values.shape[0]):
        flags[i] = abs(values[i]) > threshold[i]
        found = found or abs(values[i]) > threshold[i]
    return found


@compiled
def _turn_back(frame: Array, wrench: Array, out: Array) -> None:
    """Writes the wrench along the frame's own axes. Shapes: (4, 4), (6,), (6,)."""
    for i in range(3):
        force, torque = 0.0, 0.0
        for j in range(3):
            force += frame[j, i] * wrench[j]
            torque += frame[j, i] * wrench[3 + j]
        out[i], out[3 + i] = force, torque


def _elbow(q: Array) -> tuple[float, float]:
    return float(q[2]), -1.0 if q[3] < 0 else 1.0
