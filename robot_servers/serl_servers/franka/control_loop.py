"""The control loop: one tick of the compiled law between each state of the arm and the torque that answers it."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from serl_servers.franka.driver import CONNECTION_LOST, ArmStopped, Driver, Load, Measurement
from serl_servers.franka.mailbox import Mailbox, make_record, write_text
from serl_servers.franka.records import CommandRecord, Gains, Phase, StateRecord
from serl_suite.control import Fault, InvalidControlConfig, Parameters, make_state, recover, reset_state, tick
from serl_suite.control.impedance import pose_error, spring_energy
from serl_suite.control.rotations import (
    quaternion_from_rotation_vector,
    quaternion_multiply,
    quaternion_normalized,
)
from serl_suite.control.stability import LOOP_GAIN_MAX, loop_gain

__all__ = ["PUBLISHED_TICKS", "ControlLoop"]

PUBLISHED_TICKS = 4
"""The service is woken once in so many ticks."""
STOPPED_PERIOD_S = 0.02
AT_REST = 0.02
"""[rad/s]: slower than this, a braked arm is left to its own controller."""
BRAKING_MAX_S = 0.5
ASKED_TO_STOP = 100
"""In the tick's state, where a fault of the tick's own would be: it brakes, whatever the number."""

_EXPLAINED = {
    Fault.STALE_SETPOINT: "no setpoint for too long: whoever commanded the arm has died, hangs, or was cut off",
    Fault.INVALID_STATE: "the arm or its model reported NaN or inf",
    Fault.JOINT_POSITION: "a joint left its safe range and was still moving outward",
    Fault.JOINT_VELOCITY: "a joint was faster than it may be",
    Fault.WORKSPACE: "the TCP left the workspace box and was still moving outward",
    Fault.UNSTABLE_GAINS: "stiffness and damping are too high for the tick's rate in this pose; lower them",
}

_log = logging.getLogger(__name__)


class ControlLoop:
    """Reads, ticks, writes; takes what is newest from the service, and never waits for it.

    A setpoint ages in robot time from the tick that first saw it. A service that shows no sign of life ages it in the
    machine's own time as well, so that a dead one and a dead client come to the same: the arm holds, then stops.

    Args:
        driver: Connected, not in motion; owned.
        parameters: Of the law.
        inbox: With `CommandRecord`s.
        outbox: For `StateRecord`s.
        wake: Called when the service should look.
    """

    def __init__(
        self,
        driver: Driver,
        parameters: Parameters,
        inbox: Mailbox,
        outbox: Mailbox,
        wake: Callable[[], None],
    ) -> None:
        self._driver, self._parameters = driver, parameters
        self._inbox, self._outbox, self._wake = inbox, outbox, wake
        self._asked, self._command = make_record(CommandRecord)
        self._told, self.state = make_record(StateRecord)
        self._control = make_state()
        self._tau = np.zeros(7)
        self._target, self._target_quaternion = np.zeros(3), np.zeros(4)
        self._following = self._stands = False
        self._seen = make_record(CommandRecord)[1]
        """Numbers of what has been taken care of."""
        self._taken_at = 0.0
        self._heard_at = time.monotonic()
        self._braking_since = 0.0

    @property
    def phase(self) -> Phase:
        return Phase(int(self.state.phase[0]))

    def prepare(self) -> None:
        """Compiles all that is compiled: an arm in motion waits for a millisecond, the compiler takes longer.

        Raises:
            InvalidControlConfig: The gains are too high for the rate of the tick.
        """
        with self._latching():
            m = self._driver.read()
            gain = self._loop_gain(m, self._parameters)
            if gain > LOOP_GAIN_MAX:
                raise InvalidControlConfig(
                    f"control.stiffness and control.damping_ratio give the loop a gain of {gain:.2f} a tick, above the "
                    f"bound of {LOOP_GAIN_MAX}; lower them"
                )
            reset_state(self._control, m.q, m.position, m.quaternion)
            tick(
                self._parameters, self._control, m.q, m.dq, m.position, m.quaternion, m.jacobian, m.mass,
                m.tau_echoed, m.position, m.quaternion, 0.0, self._tau,
            )  # fmt: skip
            self._control.target_position[:] += 1.0
            self._bring_target_back(m)
            spring_energy(np.zeros(6), self._parameters.stiffness, np.zeros(6), np.zeros(6))
            recover(self._control, m.q, m.position, m.quaternion)
            reset_state(self._control, m.q, m.position, m.quaternion)
            self._report(m)

    def start(self) -> None:
        """Begins to hold the arm where it is. A refusal is latched like any other fault."""
        if self.phase is Phase.STARTING:
            with self._latching():
                self._begin()
        self._publish()

    def turn(self) -> None:
        """One tick; at rest after a fault, a look at the arm."""
        with self._latching():
            measured = self._driver.read()
            if self.phase is Phase.STOPPED:
                self._rest(measured)
            else:
                self._tick(measured)
        self._publish()

    def brake(self, fault: str, detail: str) -> None:
        """Brings the arm to rest, and ends the motion then."""
        if self.phase is Phase.RUNNING:
            self._latch(fault, detail)
            self._control.fault[0] = self._control.fault[0] or ASKED_TO_STOP
            self._enter(Phase.BRAKING)

    def close(self) -> None:
        """Lets go of the arm."""
        self._driver.close()
        self._enter(Phase.ENDED)
        self._publish()

    @property
    def asked_to_end(self) -> bool:
        return bool(self._command.end[0])

    def _begin(self) -> None:
        self._driver.start()
        measured = self._driver.read()
        recover(self._control, measured.q, measured.position, measured.quaternion)
        self._hold_at(measured)
        self._driver.write(self._tau)  # zero: bumpless
        self._enter(Phase.RUNNING)

    def _hold_at(self, measured: Measurement) -> None:
        self._target[:], self._target_quaternion[:] = measured.position, measured.quaternion
        self._following = False
        self._tau[:] = 0.0

    def _tick(self, m: Measurement) -> None:
        self._listen(m)
        age = self._age(float(m.time[0]))
        stands = age > self._parameters.setpoint_hold_s
        if stands and not self._stands:
            self._bring_target_back(m)
        self._stands = stands
        if self._command.load[0] != self._seen.load[0] and self.phase is Phase.RUNNING:
            self._set_load()
            return
        fault = tick(
            self._parameters, self._control, m.q, m.dq, m.position, m.quaternion, m.jacobian, m.mass, m.tau_echoed,
            self._target, self._target_quaternion, age, self._tau,
        )  # fmt: skip
        if fault != 0 and self.phase is Phase.RUNNING:
            name = Fault(fault).name.lower()
            self._latch(name, _EXPLAINED.get(Fault(fault), "the control law ended the motion"))
            self._enter(Phase.BRAKING)
        if self.phase is Phase.BRAKING and self._has_braked(m):
            self._driver.finish(self._tau)
            self._enter(Phase.STOPPED)
        else:
            self._driver.write(self._tau)
        self._report(m)

    def _bring_target_back(self, m: Measurement) -> None:
        """An arm that is to hold stops short of a target far ahead of it.

        Beyond its clip the spring pulls the same however far the target is, so bringing that back to the clip changes
        no torque; and the arm has no further to go than the clip.
        """
        p, c = self._parameters, self._control
        error = pose_error(m.position, m.quaternion, c.target_position, c.target_quaternion)
        clipped = np.clip(error, p.clip_lower, p.clip_upper)
        if (clipped != error).any():
            c.target_position[:] = m.position - clipped[:3]
            turn = quaternion_from_rotation_vector(-clipped[3:])
            c.target_quaternion[:] = quaternion_normalized(quaternion_multiply(turn, m.quaternion))
            self._target[:], self._target_quaternion[:] = c.target_position, c.target_quaternion

    def _age(self, now: float) -> float:
        """Of the setpoint [s]. The arm that holds has one that is always just stale: the law slows down and stays."""
        p = self._parameters
        age = now - self._taken_at if self._following else 1.001 * p.setpoint_hold_s
        silence = time.monotonic() - self._heard_at
        return max(age, silence) if silence > p.setpoint_hold_s else age

    def _listen(self, m: Measurement) -> None:
        """Takes what has come from the service."""
        if not self._inbox.read(self._asked):
            return
        command, seen = self._command, self._seen
        if command.beat[0] != seen.beat[0]:
            self._heard_at = time.monotonic()
        self._following = self._following and bool(command.following[0])
        if command.setpoint[0] != seen.setpoint[0] and self.phase is Phase.RUNNING:
            self._target[:], self._target_quaternion[:] = command.position, command.quaternion
            if np.isfinite(command.posture).all():
                self._control.start_q[:] = command.posture
            self._following = bool(command.following[0])
            self._taken_at = float(m.time[0])
        if command.gains[0] != seen.gains[0]:
            self._switch_gains(m)
        if command.episode[0] != seen.episode[0]:
            self._control.tank_fraction[0] = 1.0
        if command.stop[0] != seen.stop[0]:
            self.brake("stopped", "somebody asked the server to stop")
        for name in ("beat", "setpoint", "gains", "episode", "stop"):
            getattr(seen, name)[0] = getattr(command, name)[0]

    def _switch_gains(self, m: Measurement) -> None:
        """The spring's energy at this pose is part of what the tank holds, so it may rise as far as that goes.

        That is all that is billed, and here: to the tick, these gains are those of before.
        """
        command, p, control = self._command, self._parameters, self._control
        error = pose_error(m.position, m.quaternion, control.target_position, control.target_quaternion)
        stored = spring_energy(error, p.stiffness * control.share, p.clip_lower, p.clip_upper)
        wanted = spring_energy(
            error, command.stiffness * control.share, command.clip_lower, command.clip_upper
        )
        budget = control.tank_fraction[0] * p.tank_max - p.tank_min
        asked = p._replace(
            stiffness=command.stiffness.copy(),
            damping_ratio=float(command.damping_ratio[0]),
            clip_lower=command.clip_lower.copy(),
            clip_upper=command.clip_upper.copy(),
        )
        answer = Gains.TAKEN
        if not self._loop_gain(m, asked) <= LOOP_GAIN_MAX:  # NaN is none either
            answer = Gains.UNSTABLE
        elif p.passivity and not wanted <= max(budget, stored):
            answer = Gains.TOO_DEAR
        self.state.gains[0], self.state.gains_refused[0] = command.gains[0], answer
        if answer is Gains.TAKEN:
            self._parameters = asked

    def _loop_gain(self, m: Measurement, p: Parameters) -> float:
        return loop_gain(p.stiffness, p.damping_ratio, m.jacobian, m.mass, p.nullspace_stiffness, p.dt_s)

    def _set_load(self) -> None:
        """The arm takes a load only between motions, so one ends and another begins."""
        command = self._command
        self._seen.load[0] = self.state.load[0] = command.load[0]
        self._driver.finish(self._tau)
        self._driver.set_load(Load(float(command.load_mass[0]), command.load_com, command.load_inertia))
        self._begin()

    def _has_braked(self, m: Measurement) -> bool:
        slow = bool(np.abs(m.dq).max() < AT_REST)
        return slow or float(m.time[0]) - self._braking_since > BRAKING_MAX_S

    def _rest(self, m: Measurement) -> None:
        self._listen(m)
        self._report(m)
        if self._command.recover[0] != self._seen.recover[0]:
            self._seen.recover[0] = self.state.recover[0] = self._command.recover[0]
            self._recover()
        else:
            time.sleep(STOPPED_PERIOD_S)

    def _recover(self) -> None:
        try:
            self._driver.recover()
            self._begin()
        except ArmStopped as stopped:
            write_text(self.state.detail, f"recovery failed: {stopped}")
            raise
        write_text(self.state.fault, "")
        write_text(self.state.detail, "")

    @contextmanager
    def _latching(self) -> Iterator[None]:
        """What makes the arm stop is latched, and leaves the loop stopped."""
        try:
            yield
        except ArmStopped as stopped:
            self._latch(stopped.fault, str(stopped))
            if stopped.fault == CONNECTION_LOST and not self.state.cut_off[0]:
                self.state.cut_off[0] = 1
                _log.error("cut off from the arm: %s", stopped)
            if self.phase is Phase.STOPPED:
                time.sleep(STOPPED_PERIOD_S)
            self._enter(Phase.STOPPED)

    def _latch(self, fault: str, detail: str) -> None:
        """The first reason stays."""
        if self.state.fault[0] == 0:
            write_text(self.state.fault, fault)
            write_text(self.state.detail, detail)
            _log.error("stopped: %s (%s)", fault, detail)
            self._braking_since = float(self.state.time[0])

    def _enter(self, phase: Phase) -> None:
        self.state.phase[0] = phase

    def _report(self, m: Measurement) -> None:
        s, c = self.state, self._control
        s.ticks[0] += 1
        s.time[0], s.q[:], s.dq[:] = m.time[0], m.q, m.dq
        s.position[:], s.quaternion[:] = m.position, m.quaternion
        s.tau_echoed[:], s.tau_external[:], s.tau[:] = m.tau_echoed, m.tau_external, self._tau
        s.jacobian[:], s.mass[:] = m.jacobian, m.mass
        s.target_position[:], s.tank_fraction[0], s.gamma[0] = (
            c.target_position,
            c.tank_fraction[0],
            c.gamma[0],
        )
        s.success_rate[0] = m.success_rate[0]
        s.stiffness[:] = self._parameters.stiffness
        s.written_ns[0] = time.monotonic_ns()
        if s.setpoint[0] != self._seen.setpoint[0]:
            s.setpoint[0], s.setpoint_ns[0] = self._seen.setpoint[0], s.written_ns[0]

    def _publish(self) -> None:
        self._outbox.write(self._told)
        if self.state.ticks[0] % PUBLISHED_TICKS == 0 or self.phase is not Phase.RUNNING:
            self._wake()
