"""The hand's own controller: homing, moves and grasps, which take their time and end in a verdict."""

from serl_hardware.franka import fr3
from serl_hardware.franka.model import GRIPPER_STIFFNESS, TIMESTEP_S

from serl_envs.twins.fci.hand_packets import HandStatus

__all__ = ["Hand"]

MOVING_FORCE_N = 30.0
HOMING_SPEED = 0.1
"""Of the opening [m/s]."""
REACHED_M = 1e-3
STALLED_M_PER_TICK = 2e-6
STALLED_TICKS = 50
"""Fingers that have not moved for this long are blocked."""


class Hand:
    """Moves the reference of the fingers' servo, at a speed and within a force. A command must not find it busy.

    Args:
        width: Opening at the start [m].
        reference: The servo's at the start [m].
        holding_force_n: That of a grasp at the start; 0 for fingers that hold nothing.
    """

    def __init__(self, width: float, reference: float, holding_force_n: float) -> None:
        self.max_width = 2 * float(fr3().finger_travel[1])
        """[m]"""
        self.is_grasped = holding_force_n > 0
        """Whether the last grasp ended within its tolerances and was not let go since."""
        self.outcome: HandStatus | None = None
        """The verdict on a command that has just ended; whoever reports it sets it back to None."""
        self.width = width
        """The opening last measured [m]."""
        self._reference = reference
        self._target = 0.0 if self.is_grasped else width
        self._step, self._reach = 0.0, 0.0
        self._set_pace(HOMING_SPEED, holding_force_n or MOVING_FORCE_N)
        self._accepted: tuple[float, float] | None = None
        self._grasps = False
        self.busy = False
        """Whether a command is on its way."""
        self._still = 0

    def home(self) -> None:
        """Opens all the way."""
        self.move(self.max_width, HOMING_SPEED)

    def move(self, width: float, speed: float) -> bool:
        """Goes to an opening [m] at a speed [m/s]; False for what is no such thing: nothing changes then."""
        if not (0 <= width <= self.max_width and speed > 0):
            return False
        self._start(width, (width - REACHED_M, width + REACHED_M), grasps=False)
        self._set_pace(speed, MOVING_FORCE_N)
        return True

    def grasp(self, width: float, inner: float, outer: float, speed: float, force: float) -> bool:
        """Closes (or opens, for something held from inside) until blocked; grasped if that is near a width.

        Args:
            width: Of the thing [m].
            inner: How much less is accepted [m].
            outer: How much more is accepted [m].
            speed: Of the opening [m/s].
            force: [N].
        """
        if not (0 <= width <= self.max_width and inner >= 0 and outer >= 0 and speed > 0 and force > 0):
            return False
        target = 0.0 if width <= self.width else self.max_width
        self._start(target, (width - inner, width + outer), grasps=True)
        self._set_pace(speed, min(force, fr3().finger_max_force))
        return True

    def stop(self) -> None:
        """Ends what is on its way; the fingers stay where they are, and go on holding what they hold."""
        if self.busy:
            self._end(HandStatus.ABORTED)
        if not self.is_grasped:
            self._target = self.width

    def tick(self, width: float) -> float:
        """Takes the measured opening [m], and returns the servo's reference for the next millisecond [m]."""
        moved = width - self.width
        self.width = width
        reference = self._reference + min(max(self._target - self._reference, -self._step), self._step)
        self._reference = min(max(reference, width - self._reach), width + self._reach)
        if self.busy:
            pushes = abs(self._reference - width) >= 0.9 * self._reach or self._reference == self._target
            self._still = self._still + 1 if pushes and abs(moved) < STALLED_M_PER_TICK else 0
            arrived = abs(width - self._target) < REACHED_M and not self._grasps
            if arrived or self._still >= STALLED_TICKS:
                self._judge(width)
        return self._reference

    def _start(self, target: float, accepted: tuple[float, float], *, grasps: bool) -> None:
        self.is_grasped, self.busy, self._grasps = False, True, grasps
        self._target, self._accepted, self._still = target, accepted, 0
        self._reference = self.width

    def _set_pace(self, speed: float, force_n: float) -> None:
        self._step = min(speed, 2 * fr3().finger_max_speed) * TIMESTEP_S
        self._reach = force_n / GRIPPER_STIFFNESS

    def _judge(self, width: float) -> None:
        assert self._accepted is not None
        low, high = self._accepted
        good = low <= width <= high
        self.is_grasped = good and self._grasps
        self._end(HandStatus.SUCCESS if good else HandStatus.UNSUCCESSFUL)

    def _end(self, status: HandStatus) -> None:
        self.busy, self._accepted, self.outcome = False, None, status
