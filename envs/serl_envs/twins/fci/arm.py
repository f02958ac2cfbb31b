"""The arm's master controller: commands and one tick a millisecond in, state out. It knows no socket and no clock."""

import logging
from collections import deque

import numpy as np
from serl_hardware.franka import fr3
from serl_hardware.franka.model import TIMESTEP_S

from serl_envs.robot import Array
from serl_envs.twins.fci.arm_packets import (
    MOVE,
    ArmCommand,
    ControllerMode,
    Error,
    MotionGeneratorMode,
    MoveStatus,
    RobotMode,
    Status,
)
from serl_envs.twins.fci.command import Command
from serl_envs.twins.fci.faults import MAX_LOST, Deviation, measured_error, torque_error
from serl_envs.twins.fci.generators import (
    Generator,
    PlannedJoints,
    Reference,
    make_generator,
    pose_difference,
)
from serl_envs.twins.fci.guiding import guided_reference, guided_stiffness
from serl_envs.twins.fci.hand import Hand
from serl_envs.twins.fci.impedance import brake, cartesian_impedance, joint_impedance
from serl_envs.twins.fci.kinematics import Kinematics, frame_jacobian, frame_pose, transform
from serl_envs.twins.fci.observer import MomentumObserver
from serl_envs.twins.fci.plant import GRAVITY, Plant
from serl_envs.twins.fci.settings import Settings
from serl_envs.twins.fci.telemetry import Telemetry

__all__ = ["Arm"]

_log = logging.getLogger(__name__)

HOLD_SPEED = 0.01
"""[rad/s]: a braking arm that is slower holds its position."""
RECOVERY_SPEED = 0.2
"""[rad/s]: how fast recovery leads a joint back inside its limits."""
RECOVERY_MARGIN = 0.02
"""[rad]"""
SUCCESS_WINDOW = 100


class Arm:
    """Idle, in motion, stopped by a reflex or by the user; and what it does then.

    Args:
        plant: What moves; owned.
        hand: Ticked with it.
    """

    def __init__(self, plant: Plant, hand: Hand) -> None:
        self.plant, self.hand = plant, hand
        self.settings = Settings()
        self.telemetry = Telemetry(plant, self.settings)
        self.mode = RobotMode.IDLE
        """What the arm is doing."""
        self.outcome: MoveStatus | None = None
        """How a motion has just ended; whoever reports it sets it back to None."""
        self.tau = np.zeros(7)
        """Desired torque without gravity, in motion: what the state echoes as tau_J_d [N m], (7,)."""
        self.motor_torque = np.zeros(7)
        """What the motors applied in the last tick beyond gravity, (7,) [N m]."""
        self.is_lost = False
        """Whether the last tick of a motion went without a command."""
        self._kinematics = Kinematics(plant.model)
        self._observer = MomentumObserver(plant.mass, plant.dq, TIMESTEP_S)
        self._held: Reference | None = self._reference_at(plant.q)
        self._generator: Generator | None = None
        self._controller, self._generator_mode = ControllerMode.OTHER, MotionGeneratorMode.IDLE
        self._path = self._goal = Deviation(np.inf, np.inf, np.inf)
        self._commanded, self._lost, self._last_answered = False, 0, 0
        self._answered: deque[bool] = deque(maxlen=SUCCESS_WINDOW)
        self._errors: list[Error] = []
        self._reason: list[Error] = []
        self._tau_j = plant.gravity.copy()
        self._write_state()

    @property
    def in_motion(self) -> bool:
        """Whether a client's motion is on."""
        return self.mode is RobotMode.MOVE

    @property
    def is_guided(self) -> bool:
        """Whether somebody leads it by hand."""
        return self.mode is RobotMode.GUIDING

    @property
    def is_asynchronous(self) -> bool:
        """Whether the motion that is on goes on by itself between commands."""
        return isinstance(self._generator, PlannedJoints)

    @property
    def awaits_first_command(self) -> bool:
        """Whether a motion is on that the client has not commanded yet."""
        return self.in_motion and not self._commanded

    @property
    def at_rest(self) -> bool:
        """Whether time may stand still without anybody noticing: nothing moves, and nothing is meant to."""
        settled = self._held is not None and self.mode is not RobotMode.AUTOMATIC_ERROR_RECOVERY
        return (
            settled
            and not self.in_motion
            and not self.is_guided
            and not self.hand.busy
            and self.plant.at_rest
        )

    @property
    def errors(self) -> tuple[Error, ...]:
        """What recovery has to clear."""
        return tuple(self._errors)

    @property
    def external_estimate(self) -> Array:
        """Joint torques that the surroundings exert, as the arm estimates them, (7,) [N m]."""
        return self._observer.residual

    def start_move(self, payload: bytes) -> MoveStatus:
        """Begins a motion, or says why not."""
        controller, number, *limits, asynchronous = MOVE.unpack(payload)[:9]
        path, goal = Deviation(*limits[:3]), Deviation(*limits[3:])
        max_velocity = np.array(MOVE.unpack(payload)[9:])
        if self.mode is RobotMode.USER_STOPPED:
            return MoveStatus.REFUSED_BY_SAFETY_FUNCTION
        if self.mode is not RobotMode.IDLE:
            return MoveStatus.NOT_POSSIBLE
        if controller > ControllerMode.EXTERNAL or number >= MotionGeneratorMode.NONE:
            return MoveStatus.INVALID_ARGUMENT
        if not (path.is_sound and goal.is_sound):
            return MoveStatus.INVALID_ARGUMENT
        generator = MotionGeneratorMode(number + 1)
        if generator is MotionGeneratorMode.NONE and controller != ControllerMode.EXTERNAL:
            return MoveStatus.INVALID_ARGUMENT
        if asynchronous and (
            generator is not MotionGeneratorMode.JOINT_POSITION or not (max_velocity > 0).all()
        ):
            return MoveStatus.INVALID_ARGUMENT
        # The motion starts from what the client reads, which is rounded: its first step must not show as a jump.
        q = self.telemetry.packet["q_d"].astype(np.float64)
        tool = self.settings.flange_to_tool
        if asynchronous:
            self._generator = PlannedJoints(q, self._kinematics, tool, max_velocity)
        else:
            self._generator = make_generator(generator, q, self._kinematics, tool)
        self._controller, self._generator_mode = ControllerMode(controller), generator
        self._path, self._goal = path, goal
        self._commanded, self._lost = False, 0
        self._answered.clear()
        self._reason.clear()
        self.mode = RobotMode.MOVE
        self._write_state()
        return MoveStatus.STARTED

    def stop_move(self) -> None:
        """Ends the motion that is on, if one is."""
        if self.in_motion:
            self._end_move(MoveStatus.PREEMPTED, RobotMode.IDLE)
            self._write_state()

    def press_user_stop(self, *, pressed: bool) -> None:
        """Presses or releases the user stop; twice is once."""
        if pressed == (self.mode is RobotMode.USER_STOPPED):
            return
        _log.warning("user stop %s", "pressed" if pressed else "released")
        if self.in_motion:
            self._end_move(MoveStatus.PREEMPTED_BY_SAFETY_FUNCTION, RobotMode.USER_STOPPED)
        elif pressed:
            self.mode = RobotMode.USER_STOPPED
        else:
            self.mode = RobotMode.REFLEX if self._errors else RobotMode.IDLE
        self._write_state()

    def press_guiding(self, *, pressed: bool) -> None:
        """Presses or releases the button that lets a person lead the arm; only one at rest follows. Twice is once."""
        if pressed and self.mode is RobotMode.IDLE:
            self._held = self._reference_at(self.plant.q)
            self.mode = RobotMode.GUIDING
        elif not pressed and self.is_guided:
            self._held, self.mode = None, RobotMode.IDLE
        else:
            return
        _log.info("led by hand" if pressed else "let go")
        self._write_state()

    def recover(self) -> None:
        """Clears the errors and begins to lead joints back inside their limits, until when the mode says so.

        Not for an arm in motion or stopped by the user.
        """
        self._errors.clear()
        self._held = self._reference_at(self.plant.q)
        self.mode = RobotMode.AUTOMATIC_ERROR_RECOVERY
        self._lead_inside()
        self._write_state()

    def set_up(self, command: ArmCommand, payload: bytes) -> Status:
        """Carries out one of the Set commands, for which the arm must not be in motion."""
        if self.in_motion:
            return Status.NOT_POSSIBLE
        status = self.settings.apply(command, payload)
        if self._held is not None:
            self._held = self._reference_at(self._held.q)
        self.telemetry.write_settings()
        self._write_state()
        return status

    def tick(self, command: Command | None, *, physics: bool = True) -> None:
        """Lets a millisecond pass.

        Args:
            command: The client's newest; None if there was none.
            physics: False lets only the clock of the state go on.
        """
        if self.in_motion:
            self._take(command)
        if physics:
            self._move()
            self._lead_inside()
        self.telemetry.advance()
        self._write_state()

    def _take(self, command: Command | None) -> None:
        if command is not None and not self._counts(command):
            command = None
        self.is_lost = command is None and self._commanded and not self.is_asynchronous
        if command is None:
            if self._commanded:
                self._go_without()
            return
        self._commanded, self._lost, self._last_answered = True, 0, command.message_id
        self._answered.append(True)
        error = self._generator.follow(command) if self._generator is not None else None
        if error is None and self._controller is ControllerMode.EXTERNAL:
            error = torque_error(command.tau, self.tau)
            if error is None:
                self.tau[:] = command.tau
        if error is None and command.finished and not self._is_near(self._goal):
            error = Error.MAX_GOAL_POSE_DEVIATION_VIOLATION
        if error is not None:
            self._stop_by(error)
        elif command.finished:
            self._end_move(MoveStatus.SUCCESS, RobotMode.IDLE)

    def _counts(self, command: Command) -> bool:
        """Whether it answers a state that there was, and none twice. A late torque is better than none; a late position
        would be a step back."""
        newest = int(self.telemetry.packet["message_id"])
        if self._generator is not None and not self.is_asynchronous:
            return command.message_id == newest
        return self._last_answered < command.message_id <= newest

    def _go_without(self) -> None:
        """A packet is lost: the last torque is held, and a generated motion goes on as it was."""
        self._answered.append(False)
        self._lost += not self.is_asynchronous
        if self._generator is not None:
            self._generator.extrapolate()
        if self._lost >= MAX_LOST:
            self._stop_by(Error.COMMUNICATION_CONSTRAINTS_VIOLATION)

    def _move(self) -> None:
        plant, limit = self.plant, fr3().max_torque
        coriolis = plant.coriolis.copy()
        external = self._commanded and self._controller is ControllerMode.EXTERNAL
        wanted = self.tau if external else self._internal_torque() + coriolis
        tau = np.minimum(np.maximum(wanted, -limit), limit)
        load = self._load_torque()
        self._tau_j = tau + plant.gravity + load
        self.motor_torque[:] = tau + load
        plant.step(self.motor_torque, self.hand.tick(plant.width))
        self._observer.update(plant.mass, plant.dq, tau, coriolis)
        reflex = self.telemetry.write_contacts(self._observer.residual)
        if not self.in_motion:
            return
        self.tau[:] = tau if self._commanded else 0.0
        error = measured_error(plant.q, plant.dq)
        error = reflex if error is None else error  # the first of the errors is 0
        if error is None and self._commanded and not self._is_near(self._path):
            error = Error.MAX_PATH_POSE_DEVIATION_VIOLATION
        if error is not None:
            self._stop_by(error)

    def _is_near(self, limits: Deviation) -> bool:
        """Whether the arm is as near to what the client's motion generator wants as it is to be."""
        if self._generator is None:
            return True
        desired = self._generator.reference
        error = pose_difference(self._pose(), desired.pose)
        return limits.allows(error, float(desired.q[2] - self.plant.q[2]))

    def _internal_torque(self) -> Array:
        plant = self.plant
        if self.is_guided:
            return self._guided_torque()
        if self._held is None and not self._commanded:
            if np.abs(plant.dq).max() >= HOLD_SPEED:
                return brake(plant.dq, plant.mass)
            self._held = self._reference_at(plant.q)
        reference = self._generator.reference if self._commanded and self._generator else self._held
        assert reference is not None
        if self._controller is ControllerMode.CARTESIAN_IMPEDANCE:
            return self._cartesian_torque(reference, self._pose(), self.settings.cartesian_stiffness)
        return joint_impedance(reference, plant.q, plant.dq, plant.mass, self.settings.joint_stiffness)

    def _guided_torque(self) -> Array:
        assert self._held is not None
        guiding, pose = self.settings.guiding, self._pose()
        self._held = guided_reference(guiding, self._held, pose, self.plant.q)
        stiffness = guided_stiffness(guiding, self.settings.cartesian_stiffness)
        return self._cartesian_torque(self._held, pose, stiffness, guiding.posture_stiffness)

    def _cartesian_torque(
        self, reference: Reference, pose: Array, stiffness: Array, *posture: float
    ) -> Array:
        plant = self.plant
        jacobian = frame_jacobian(plant.data, pose[:3, 3])
        return cartesian_impedance(
            reference, pose, jacobian, plant.q, plant.dq, plant.mass, stiffness, *posture
        )

    def _pose(self) -> Array:
        """O_T_EE as measured, (4, 4)."""
        return frame_pose(self.plant.model, self.plant.data, self.settings.flange_to_tool)

    def _load_torque(self) -> Array:
        """What holds the load that the client has declared, (7,) [N m]."""
        if self.settings.load_mass == 0.0:
            return np.zeros(7)
        plant = self.plant
        com = frame_pose(plant.model, plant.data, transform(np.eye(3), self.settings.load_com))[:3, 3]
        jacobian = frame_jacobian(plant.data, com)
        return np.asarray(jacobian[2] * (self.settings.load_mass * GRAVITY), np.float64)

    def _lead_inside(self) -> None:
        """Recovery: leads the held position inside the limits, and ends when the arm has followed."""
        if self.mode is not RobotMode.AUTOMATIC_ERROR_RECOVERY or self._held is None:
            return
        arm, held = fr3(), self._held.q
        inside = np.clip(held, arm.q_min + RECOVERY_MARGIN, arm.q_max - RECOVERY_MARGIN)
        if (held == inside).all():
            if measured_error(self.plant.q, self.plant.dq) is None:
                self.mode = RobotMode.IDLE
            return
        step = RECOVERY_SPEED * TIMESTEP_S
        self._held = self._reference_at(held + np.clip(inside - held, -step, step))

    def _stop_by(self, error: Error) -> None:
        _log.warning("reflex: %s", error.name.lower())
        self._errors, self._reason = [error], [error]
        self._end_move(MoveStatus.ABORTED_BY_REFLEX, RobotMode.REFLEX)

    def _end_move(self, status: MoveStatus, mode: RobotMode) -> None:
        generator, self._generator = self._generator, None
        self._held = None
        if generator is not None and status is MoveStatus.SUCCESS:
            self._held = self._reference_at(generator.reference.q)
        self._controller, self._generator_mode = ControllerMode.OTHER, MotionGeneratorMode.IDLE
        self.tau[:] = 0.0
        self._commanded, self.is_lost, self.outcome, self.mode = False, False, status, mode

    def _reference_at(self, q: Array) -> Reference:
        return Reference(q, self._kinematics.at(q, self.settings.flange_to_tool)[0])

    def _write_state(self) -> None:
        telemetry = self.telemetry
        torque_only = self.in_motion and self._generator is None
        desired = self._generator.reference if self._generator else self._held
        telemetry.write_motion(None if torque_only else desired)
        rate = sum(self._answered) / len(self._answered) if self.in_motion and self._answered else 0.0
        telemetry.write_torques(self.tau, self._tau_j, rate)
        telemetry.write_errors(self._errors, self._reason)
        telemetry.write_modes(self.mode, self._generator_mode, self._controller)
