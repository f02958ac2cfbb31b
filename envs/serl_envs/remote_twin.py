"""A wire twin behind a robot server: the robot as on a metal arm, the things around it from the twin itself."""

import logging
import time

from serl_envs.remote import DEADLINE_S, as_fault
from serl_envs.remote_arm import RemoteArm
from serl_envs.remote_cameras import RemoteCameras
from serl_envs.remote_scene import RemoteScene
from serl_envs.robot import Array, RobotFault, RobotState, Setpoint
from serl_suite.control import ControlConfig
from serl_suite.wire.keys import ClientKeys
from serl_suite.wire.robot_client import RobotRefused, RobotUnreachable
from serl_suite.wire.robot_messages import ArmState, Heartbeat

__all__ = ["RemoteTwin"]

_log = logging.getLogger(__name__)

SLICE_S = 0.1
"""In lockstep, robot time that passes for one setpoint: it is stale after that."""
RESET_SLICE_S = 0.05
NUDGE_S = 0.002
"""The server publishes every fourth state, but the newest one with each request."""
STUCK_NUDGES = 2500
TRIES = 4
"""Of a reset: on a busy machine server and client may not hear each other in time."""
RECOVERY_PERIOD_S = 2.2
"""A server takes no more than one recovery in two seconds."""


class RemoteTwin(RemoteArm):
    """Implements `SimulatedRobot`. In lockstep, robot time passes in `command`, `reset` and `recover` only, so that
    however long a policy or a learner takes changes nothing; in real time it passes as on a metal arm.

    Args:
        scene: Of the twin; owned.
        address, keys, name, gains: As `RemoteRobot`.
        cameras: As `RemoteArm`.

    Raises:
        AddressError, RobotUnreachable: As `RemoteRobot`.
    """

    scene: RemoteScene

    def __init__(
        self,
        scene: RemoteScene,
        address: str,
        keys: ClientKeys | None = None,
        name: str = "actor",
        gains: ControlConfig | None = None,
        cameras: RemoteCameras | None = None,
    ) -> None:
        super().__init__(scene, address, keys, name, gains, cameras)
        if scene.is_lockstep:
            self._meanwhile = self._let_pass
        self._recovered_at = time.monotonic()
        """By this or by whoever had the arm before."""

    def observe(self) -> RobotState:
        """Returns the newest measurement, and sees where everything is.

        Raises:
            RobotFault: The server has gone silent.
            TwinUnreachable: So has the twin.
        """
        state = super().observe()
        self.scene.look()
        return state

    def command(self, setpoint: Setpoint, period_s: float) -> None:
        """Tracks the setpoint for `period_s` of robot time.

        Raises:
            RobotFault: A fault is latched, the server refuses the setpoint, or it has gone silent; says why.
        """
        if not self.scene.is_lockstep:
            super().command(setpoint, period_s)
            return
        client = self._client
        with as_fault():
            state = self._unstopped()
            client.keep_control()
            end_s = state.time_s + period_s
            while not state.fault and not _reached(state, end_s):
                until_s = min(state.time_s + SLICE_S, end_s)
                self._deliver(setpoint, state.time_s + DEADLINE_S)
                self.scene.run_until(until_s)
                state = self._await(until_s)

    def reset(self, position: Array, quaternion: Array, gripper_width: float) -> None:
        """Has the server go to the pose, and again where it does not get there. A fault of the last episode is cleared.
        On a metal arm both are for people to decide.

        Raises:
            RobotFault: The pose was not reached, the fault stays, or the server has gone silent; says why.
        """
        for tries_left in range(TRIES - 1, -1, -1):
            try:
                self._go(position, quaternion, gripper_width)
                break
            except RobotFault as error:
                if tries_left == 0:
                    raise
                _log.warning("once more: %s", error)
                with as_fault():
                    self._client.take_control()

    def recover(self, reason: str) -> None:
        """Clears a latched fault; server and client log the reason.

        Raises:
            RobotFault: The fault stays, or the last recovery was too short ago.
        """
        self.scene.run_until(None)
        self._recovered_at = time.monotonic()
        super().recover(reason)
        self._stand_still()

    def stop(self) -> None:
        """Gives control back, upon which the arm holds, and leaves the twin; twice is once."""
        super().stop()
        self.scene.close()

    def _go(self, position: Array, quaternion: Array, gripper_width: float) -> None:
        with as_fault():
            fault = self._client.newest().fault
        if fault:
            time.sleep(max(0.0, self._recovered_at + RECOVERY_PERIOD_S - time.monotonic()))
            self.recover(f"a simulated episode ended with {fault}")
        else:
            self._stand_still()
        super().reset(position, quaternion, gripper_width)

    def _deliver(self, setpoint: Setpoint, deadline_s: float) -> None:
        """Returns once the server has the setpoint. Where it has not heard of this client for a second, which on a busy
        machine happens, control is taken again: no robot time has passed meanwhile."""
        client = self._client
        try:
            client.ask(Heartbeat(number=client.next_number()), after=self._request(setpoint, deadline_s))
        except RobotRefused:
            client.take_control()
            client.ask(Heartbeat(number=client.next_number()), after=self._request(setpoint, deadline_s))

    def _stand_still(self) -> None:
        if self.scene.is_lockstep:
            self.scene.look()
            self.scene.run_until(self.scene.time_s)
            with as_fault():
                self._await(self.scene.time_s)

    def _let_pass(self) -> None:
        """A little robot time, and no more than server and client have seen pass."""
        time_s = self._client.state.time_s + RESET_SLICE_S
        self.scene.run_until(time_s)
        self._await(time_s)

    def _await(self, time_s: float) -> ArmState:
        """The state at a robot time that will come or has come, or one with a fault."""
        client = self._client
        for _ in range(STUCK_NUDGES):
            if client.has_news(NUDGE_S):
                state = client.newest()
                if state.fault or _reached(state, time_s):
                    return state
            else:
                client.send(Heartbeat(number=client.next_number()))
        raise RobotUnreachable(f"the twin's time stands at {client.state.time_s:.3f} s; start it again")


def _reached(state: ArmState, time_s: float) -> bool:
    """Up to half a tick, which is more than what rounding does to a sum of times."""
    return state.time_s > time_s - 0.0005
