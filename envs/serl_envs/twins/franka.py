"""The in-process twin of FR3 and hand: the robot's own control tick around MuJoCo, many times faster than real time."""

import logging
import tempfile

import mujoco
import numpy as np
import numpy.typing as npt
from serl_hardware.franka import fr3
from serl_hardware.franka.model import GRIPPER_STIFFNESS, TCP_SITE, TIMESTEP_S

from serl_envs.robot import Array, RobotFault, RobotState, Setpoint
from serl_envs.tasks.task import Task
from serl_envs.twins.loop import ARM, GripperDrive, Views, run_ticks
from serl_envs.twins.rendering import Painter
from serl_envs.twins.scene import Scene, build_model
from serl_suite.control import (
    ControlConfig,
    Fault,
    JointLimits,
    make_parameters,
    make_state,
    recover,
    reset_state,
)
from serl_suite.control.rotations import rotation_difference
from serl_suite.errors import SerlError

__all__ = ["FrankaTwin", "SimulationDiverged", "control_config"]

_log = logging.getLogger(__name__)

TARGET_FILTER_S = 0.015
"""Takes the edge off a setpoint's step at 10 Hz without adding a lag that a policy would have to learn."""
DAMPING_RATIO = 0.7
ROTATIONAL_STIFFNESS = 0.06
"""Of the translational [m^2/rad]: a tool of 25 cm is about as stiff at its tip in both."""
IK_TOLERANCE_M = 1e-6
IK_ITERATIONS = 60


class SimulationDiverged(SerlError):
    """The physics produced NaN or inf."""


def _dump(qpos: Array, qvel: Array, tau: Array, setpoint: Setpoint) -> str:
    """Writes the last good state and what was asked of it, and returns the message that says where."""
    with tempfile.NamedTemporaryFile(prefix="serl_diverged_", suffix=".npz", delete=False) as file:
        np.savez(
            file, qpos=qpos, qvel=qvel, tau=tau, position=setpoint.position, quaternion=setpoint.quaternion
        )
    return (
        f"the simulation produced NaN or inf; the state before that period is in {file.name}; reset the environment "
        "to go on, and look for an object placed inside another or a gain too high for 1 kHz"
    )


def control_config(task: Task) -> ControlConfig:
    """The impedance controller's settings for a task: its stiffness, its force bound, the safety stages' defaults."""
    stiffness, turning = task.stiffness_n_per_m, task.stiffness_n_per_m * ROTATIONAL_STIFFNESS
    clip = task.max_force_n / stiffness
    turn_clip = max(task.rotation_rad, 0.1)
    clips = (clip, clip, clip, turn_clip, turn_clip, turn_clip)
    return ControlConfig(
        stiffness=(stiffness, stiffness, stiffness, turning, turning, turning),
        damping_ratio=DAMPING_RATIO,
        clip_lower=(-clip, -clip, -clip, -turn_clip, -turn_clip, -turn_clip),
        clip_upper=clips,
        filter_s=TARGET_FILTER_S,
    )


class FrankaTwin:
    """Implements `Robot`. Time is simulated: `command` returns as soon as the period is computed.

    Args:
        task: Whose objects stand in the scene, and whose stiffness and force bound the controller gets.
    """

    def __init__(self, task: Task) -> None:
        self.model = build_model(task.add_objects)
        self.data = mujoco.MjData(self.model)
        self.scene = Scene(self.model, self.data)
        arm = fr3()
        limits = JointLimits(arm.q_min, arm.q_max, arm.max_velocity, arm.max_torque)
        self._parameters = make_parameters(control_config(task), limits, TIMESTEP_S)
        self._control_state = make_state()
        speed = 2 * arm.finger_max_speed  # of the opening: two fingers
        self._drive = GripperDrive(speed * TIMESTEP_S, task.grasp_force_n / GRIPPER_STIFFNESS)
        self._views = self._make_views()
        self._gripper_target = 0.0
        self._fault: str | None = None
        self._painter: Painter | None = None

    def _make_views(self) -> Views:
        model, data = self.model, self.data
        hand = model.body("hand").id
        return Views(
            qpos=data.qpos, qvel=data.qvel, ctrl=data.ctrl, inertia=data.M, inertia_row=model.M_rowadr.copy(),
            joint_anchor=data.xanchor, joint_axis=data.xaxis,
            tcp_position=data.site_xpos[model.site(TCP_SITE).id], hand_quaternion=data.xquat[hand],
            tau_constraint=data.qfrc_constraint, tau=np.zeros(ARM), tau_external=np.zeros(ARM),
        )  # fmt: skip

    def observe(self) -> RobotState:
        """Returns the state after the last tick; the arrays are copies."""
        views = self._views
        jacobian = self._jacobian()
        w, x, y, z = views.hand_quaternion
        dq = views.qvel[:ARM].copy()
        return RobotState(
            time_s=self.data.time,
            q=views.qpos[:ARM].copy(),
            dq=dq,
            position=views.tcp_position.copy(),
            quaternion=np.array([x, y, z, w]),
            twist=jacobian @ dq,
            wrench=self._wrench(jacobian),
            gripper_width=float(views.qpos[ARM] + views.qpos[ARM + 1]),
            gripper_target=self._gripper_target,
            fault=self._fault,
        )

    def command(self, setpoint: Setpoint, period_s: float) -> None:
        """Computes `period_s` of simulated time under control.

        Raises:
            RobotFault: A fault is latched, or the setpoint is not finite; nothing moved.
            SimulationDiverged: The physics produced NaN or inf; only `reset` helps.
        """
        if self._fault is not None:
            raise RobotFault(
                f"the twin is stopped by {self._fault}; call recover(reason) or reset the environment"
            )
        if not (np.isfinite(setpoint.position).all() and np.isfinite(setpoint.quaternion).all()):
            raise RobotFault(f"the setpoint is not finite ({setpoint}); nothing was moved")
        self._gripper_target = setpoint.gripper_width
        before = self.data.qpos.copy(), self.data.qvel.copy()
        status = run_ticks(
            self.model._address, self.data._address, round(period_s / TIMESTEP_S), TIMESTEP_S, self._views,
            self._parameters, self._control_state, self._drive,
            setpoint.position, setpoint.quaternion, setpoint.gripper_width,
        )  # fmt: skip
        if not (np.isfinite(self.data.qpos).all() and np.isfinite(self.data.qvel).all()):
            raise SimulationDiverged(_dump(*before, self._views.tau, setpoint))
        if status != 0:
            self._fault = Fault(status).name.lower()
            _log.warning("the twin stopped: %s", self._fault)

    def reset(self, position: Array, quaternion: Array, gripper_width: float) -> None:
        """Puts the arm there at once and everything else where the scene was built; clears a fault.

        Raises:
            RobotFault: No joint position reaches the pose.
        """
        q = self._inverse_kinematics(position, quaternion)
        data, views = self.data, self._views
        mujoco.mj_resetData(self.model, data)
        data.qpos[:ARM] = q
        data.qpos[ARM : ARM + 2] = 0.5 * gripper_width
        data.ctrl[ARM] = self._gripper_target = gripper_width
        views.tau[:] = views.tau_external[:] = 0.0
        mujoco.mj_step1(self.model, data)
        reset_state(self._control_state, data.qpos[:ARM], position, quaternion)
        self._fault = None

    def recover(self, reason: str) -> None:
        """Clears a fault; the arm holds the pose that it is in."""
        _log.warning("recovered from %s: %s", self._fault, reason)
        state = self.observe()
        recover(self._control_state, state.q, state.position, state.quaternion)
        self._fault = None

    def stop(self) -> None:
        """Frees the renderer; a twin has nothing else to let go of."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def picture(self, camera: str, size: int) -> npt.NDArray[np.uint8]:
        """Returns what a camera sees, with shadows in the bird's view only: they cost more than all else.

        Shape: (size, size, 3), RGB.

        Raises:
            RenderingUnavailable: No OpenGL on this machine.
        """
        if self._painter is None:
            self._painter = Painter(self.model)
        return self._painter.picture(self.data, camera, size, shadows=camera == "view")

    def _jacobian(self) -> Array:
        arms = self._views.tcp_position - self._views.joint_anchor[:ARM]
        axes = self._views.joint_axis[:ARM]
        jacobian: Array = np.concatenate([np.cross(axes, arms), axes], axis=1).T
        return jacobian

    def _wrench(self, jacobian: Array) -> Array:
        """The wrench at the TCP whose joint torques are nearest to the estimated external ones, weighted by inertia."""
        views = self._views
        mass = np.zeros((ARM, ARM))
        for i in range(ARM):
            start = views.inertia_row[i]
            mass[i, : i + 1] = mass[: i + 1, i] = views.inertia[start : start + i + 1]
        weighted = np.linalg.solve(mass, jacobian.T)
        wrench = np.linalg.solve(jacobian @ weighted, weighted.T @ views.tau_external)
        return np.asarray(wrench, np.float64)

    def _inverse_kinematics(self, position: Array, quaternion: Array) -> Array:
        """Damped least squares from the ready pose. Shape: (7,).

        Raises:
            RobotFault: No solution within the joint limits.
        """
        figures, views, data = fr3(), self._views, self.data
        data.qpos[:ARM] = figures.q_ready
        for _ in range(IK_ITERATIONS):
            mujoco.mj_kinematics(self.model, data)
            w, x, y, z = views.hand_quaternion
            error = np.concatenate(
                [position - views.tcp_position, rotation_difference(quaternion, np.array([x, y, z, w]))]
            )
            if np.abs(error).max() < IK_TOLERANCE_M:
                solution: Array = data.qpos[:ARM].copy()
                return solution
            jacobian = self._jacobian()
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-6 * np.eye(6), error)
            data.qpos[:ARM] = np.clip(data.qpos[:ARM] + step, figures.q_min + 0.1, figures.q_max - 0.1)
        raise RobotFault(
            f"no joint position reaches {position}, {quaternion}; choose a pose inside the workspace"
        )
