"""The in-process twin of FR3 and hand: the robot's own control tick around MuJoCo, many times faster than real time."""

import logging
from collections.abc import Callable

import mujoco
import numpy as np

from serl_envs.robot import Array, RobotFault, RobotState, Setpoint
from serl_envs.twins.loop import ARM, GripperDrive, Views, run_ticks
from serl_envs.twins.scene import PHYSICS_DT_S, Scene, build_model
from serl_hardware.franka import fr3
from serl_hardware.franka.model import GRIPPER_ACTUATOR, GRIPPER_STIFFNESS, TCP_SITE
from serl_suite.control import ControlConfig, Fault, JointLimits, make_parameters, make_state, reset_state
from serl_suite.control.rotations import rotation_difference

__all__ = ["FrankaTwin"]

_log = logging.getLogger(__name__)

IK_TOLERANCE_M = 1e-6
IK_ITERATIONS = 60


class FrankaTwin:
    """Implements `Robot`. Time is simulated: `command` returns as soon as the period is computed.

    Args:
        add_objects: Adds the task's objects to the scene's MjSpec.
        control: The controller's configuration.
        grasp_force_n: Force of each finger on what it holds [N].
    """

    def __init__(self, add_objects: Callable[[mujoco.MjSpec], None], control: ControlConfig, grasp_force_n: float = 40.0) -> None:
        self.model = build_model(add_objects)
        self.data = mujoco.MjData(self.model)
        self.scene = Scene(self.model, self.data)
        arm = fr3()
        limits = JointLimits(arm.q_min, arm.q_max, arm.max_velocity, arm.max_torque)
        self._parameters = make_parameters(control, limits, PHYSICS_DT_S)
        self._control_state = make_state()
        speed = 2 * arm.finger_max_speed  # of the opening: two fingers
        self._drive = GripperDrive(speed * PHYSICS_DT_S, grasp_force_n / GRIPPER_STIFFNESS)
        self._views = self._make_views()
        self._gripper_target = 0.0
        self._fault: str | None = None

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
        if self._fault is not None:
            raise RobotFault(f"the twin is stopped by {self._fault}; call recover(reason) or reset the environment")
        if not (np.isfinite(setpoint.position).all() and np.isfinite(setpoint.quaternion).all()):
            raise RobotFault(f"the setpoint is not finite ({setpoint}); nothing was moved")
        self._gripper_target = setpoint.gripper_width
        status = run_ticks(
            self.model._address, self.data._address, round(period_s / PHYSICS_DT_S), PHYSICS_DT_S, self._views,
            self._parameters, self._control_state, self._drive,
            setpoint.position, setpoint.quaternion, setpoint.gripper_width,
        )  # fmt: skip
        if status != 0:
            self._fault = Fault(status).name.lower()
            _log.warning("the twin stopped: %s", self._fault)

    def reset(self, position: Array, quaternion: Array, gripper_width: float) -> None:
        """Puts the arm there at once and everything else where the scene was built; clears a fault."""
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
        _log.warning("recovered from %s: %s", self._fault, reason)
        self._fault = None

    def stop(self) -> None:
        """Nothing to let go of in a twin."""

    def _jacobian(self) -> Array:
        arms = self._views.tcp_position - self._views.joint_anchor[:ARM]
        axes = self._views.joint_axis[:ARM]
        return np.concatenate([np.cross(axes, arms), axes], axis=1).T

    def _wrench(self, jacobian: Array) -> Array:
        """The wrench at the TCP whose joint torques are nearest to the estimated external ones, weighted by inertia."""
        views = self._views
        mass = np.zeros((ARM, ARM))
        for i in range(ARM):
            start = views.inertia_row[i]
            mass[i, : i + 1] = mass[: i + 1, i] = views.inertia[start : start + i + 1]
        weighted = np.linalg.solve(mass, jacobian.T)
        return np.linalg.solve(jacobian @ weighted, weighted.T @ views.tau_external)

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
                return data.qpos[:ARM].copy()
            jacobian = self._jacobian()
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-6 * np.eye(6), error)
            data.qpos[:ARM] = np.clip(data.qpos[:ARM] + step, figures.q_min + 0.1, figures.q_max - 0.1)
        raise RobotFault(f"no joint position reaches {position}, {quaternion}; choose a pose inside the workspace")
