"""The twin on the network: one thread that ticks the arm and serves its clients, in real time or in lockstep."""

import logging
import select
import socket
import time
from collections.abc import Callable

from serl_envs.twins.fci import arm_packets, hand_packets
from serl_envs.twins.fci.arm import Arm
from serl_envs.twins.fci.arm_packets import RobotMode
from serl_envs.twins.fci.arm_session import ArmSession
from serl_envs.twins.fci.command import Command
from serl_envs.twins.fci.connection import listen
from serl_envs.twins.fci.hand_session import HandSession
from serl_envs.twins.fci.impairment import Impairment, Network
from serl_envs.twins.fci.pace import Pace
from serl_envs.twins.fci.scene_channel import SceneChannel
from serl_suite.errors import SerlError

__all__ = ["AddressInUse", "TwinServer"]

_log = logging.getLogger(__name__)

TICK_S = 1e-3
FIRST_COMMAND_PERIOD_S = 5e-3
"""Between states before a motion's first command, in lockstep: long enough for a client to answer each, so that the
first command that counts is the same one every time."""
PATIENCE_S = 0.5
"""How long lockstep waits for a command before it counts as lost."""
CRAWL_S = 0.2
"""Between ticks while the scene's client lets no time pass: an arm's client that hears nothing for a second takes it
for gone, and on a busy machine either may be late."""
SETTLE_TICKS = 1000
"""In lockstep, what still moves this long after a motion is left hanging in the air."""
SIGN_OF_LIFE_S = 0.3
"""Meanwhile, on a machine that is slow about it: an arm's client that hears nothing for a second takes it for gone."""
IDLE_POLL_S = 0.2
"""How often a twin without clients looks whether it is to stop."""
TOLERATED_S = 0.3e-3
"""In real time: by how much a tick may follow sooner on one that was late. A twin that caught up on more would take
away its client's time to answer, so its clock goes slow instead."""
GREETING_S = 2.0
"""Whoever connects and does not say Connect by then keeps the others out no longer."""
HAND_PERIOD_TICKS = 30


class AddressInUse(SerlError):
    """Somebody listens at the twin's address already, or it is not this machine's."""


class TwinServer:
    """Listens at both ports of an arm. A second client of either waits until the first has left.

    Args:
        arm: Served; with its hand.
        address: IPv4 address to listen at, such as 127.0.0.1.
        pace: Real time or lockstep.
        network: How bad it is.
        scene: Served between the ticks; owned.
        on_tick: Called after every millisecond of simulated time.
        clock: Seconds, monotonic: for the pace only.

    Raises:
        AddressInUse: One of the ports can't be had.
    """

    def __init__(
        self,
        arm: Arm,
        address: str,
        pace: Pace,
        *,
        network: Network | None = None,
        scene: SceneChannel | None = None,
        on_tick: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.arm, self.address, self.pace = arm, address, pace
        self.late_ticks = 0
        """Ticks that came late by more than is caught up on, in real time."""
        self._network = Impairment(network or Network())
        self._scene, self._on_tick, self._clock = scene, on_tick, clock
        self._arm_session: ArmSession | None = None
        self._hand_session: HandSession | None = None
        self._accepted: dict[int, float] = {}
        self._listeners: list[socket.socket] = []
        for port in (arm_packets.PORT, hand_packets.PORT):
            try:
                self._listeners.append(listen(address, port))
            except OSError as error:
                self.close()
                raise AddressInUse(
                    f"can't listen at {address}:{port} ({error}); another twin there? Take 127.0.0.2, ..."
                ) from error
        self._ticks = 0
        self._due = clock()
        self._state_sent = True
        self._unsettled = True

    def serve(
        self,
        should_stop: Callable[[], bool],
        user_stop: Callable[[], bool] = lambda: False,
        guiding: Callable[[], bool] = lambda: False,
    ) -> None:
        """Runs until told to stop; then answers whoever waits for an answer, and closes.

        Args:
            should_stop: Asked every turn.
            user_stop: Whether the user stop is pressed; likewise.
            guiding: Whether the button is that lets a person lead the arm; likewise.
        """
        try:
            while not should_stop():
                self.arm.press_user_stop(pressed=user_stop())
                self.arm.press_guiding(pressed=guiding())
                self._turn()
        finally:
            self.close()

    def close(self) -> None:
        """Lets all clients go; twice is once."""
        for session in (self._arm_session, self._hand_session):
            if session is not None:
                session.close()
        self._arm_session = self._hand_session = None
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if self._scene is not None:
            self._scene.close()
            self._scene = None

    def _turn(self) -> None:
        """Waits for what comes first, a packet or the next tick, and deals with it."""
        if self.pace == "lockstep":
            self._settle()
        if self._arm_session is None and self._hand_session is None:
            self._due = self._clock() + IDLE_POLL_S
        awaits = self._awaits_command()
        readable = self._wait(with_datagrams=awaits and not self._stands())
        self._accept(readable)
        self._serve_clients()
        if self._scene is not None and not readable.isdisjoint(self._scene.fds):
            self._scene.answer()
        due = self._clock() >= self._due and self._has_clients()
        command = self._answer_to_newest() if awaits and (due or not self._stands()) else None
        if command is not None or due:
            self._tick(command)

    def _stands(self) -> bool:
        """Whether time stands still, as the scene's client wants it; but for a millisecond with each `CRAWL_S`."""
        return self._scene is not None and self._scene.stands

    def _wait(self, *, with_datagrams: bool) -> set[int]:
        reading, writing = list(self._scene.fds) if self._scene is not None else [], []
        for listener, session in zip(self._listeners, (self._arm_session, self._hand_session), strict=True):
            if session is None:
                reading.append(listener.fileno())
                continue
            reading.append(session.connection.fileno())
            if session.connection.has_unsent:
                writing.append(session.connection.fileno())
        if with_datagrams and self._arm_session is not None and self._arm_session.datagrams is not None:
            reading.append(self._arm_session.datagrams.fileno())
        left = max(0.0, self._due - self._clock())
        ready, writable, _ = select.select(reading, writing, [], left)
        return {*ready, *writable}

    def _accept(self, readable: set[int]) -> None:
        arm, hand = self._listeners
        for listener in (arm, hand):
            if listener.fileno() not in readable:
                continue
            try:
                stream, (peer, _) = listener.accept()
            except OSError as error:  # it has left before it was let in
                _log.info("a client left at once: %s", error)
                continue
            self._due = self._clock()
            self._accepted[listener.fileno()] = self._due
            if listener is arm:
                self._arm_session = ArmSession(stream, peer, self.arm, self.address)
            else:
                self._hand_session = HandSession(stream, peer, self.arm.hand, self.address)

    def _serve_clients(self) -> None:
        for listener, session in zip(self._listeners, (self._arm_session, self._hand_session), strict=True):
            if session is None:
                continue
            session.connection.flush()
            session.answer()
            session.report()
            if not session.is_established and self._clock() - self._accepted[listener.fileno()] > GREETING_S:
                session.connection.broken = session.connection.broken or "it says nothing"
        if self._arm_session is not None and self._arm_session.connection.broken:
            self._arm_session.close()
            self._arm_session = None
        if self._hand_session is not None and self._hand_session.connection.broken:
            self._hand_session.close()
            self._hand_session = None

    def _has_clients(self) -> bool:
        return self._arm_session is not None or self._hand_session is not None

    def _awaits_command(self) -> bool:
        """Lockstep in motion: whether the client has a state that it must answer."""
        arm = self.arm
        return self.pace == "lockstep" and arm.in_motion and not arm.is_asynchronous and self._state_sent

    def _answer_to_newest(self) -> Command | None:
        """Lockstep: the command that answers the newest state; a slower client's answers to older ones don't count."""
        session = self._arm_session
        if session is None:
            return None
        newest = session.last_sent
        return next((c for c in reversed(session.receive()) if c.message_id == newest), None)

    def _newest(self) -> Command | None:
        """The newest command that has arrived since the last tick."""
        commands = self._arm_session.receive() if self._arm_session is not None else []
        return max(commands, key=lambda command: command.message_id, default=None)

    def _tick(self, command: Command | None) -> None:
        arm, began = self.arm, self._clock()
        # Until a client has commanded its motion, how many packets go to and fro is a matter of its speed.
        commanded = arm.in_motion and not arm.awaits_first_command
        if self.pace == "realtime" or arm.is_asynchronous:
            command = self._newest()
        if commanded:
            command = self._network.passes(command, self._ticks)
        physics = self._time_passes(command)
        arm.tick(command, physics=physics)
        self._ticks += 1
        if physics:
            self._on_tick()
        if not arm.in_motion:
            self._network.clear()
        self._state_sent = not (commanded and arm.in_motion and self._network.loses())
        if self._arm_session is not None:
            self._arm_session.report()
            if self._state_sent:
                self._arm_session.send_state()
        if self._hand_session is not None:
            self._hand_session.report()
            if self._ticks % HAND_PERIOD_TICKS == 0:
                self._hand_session.send_state(self._ticks)
        self._schedule(began)

    def _time_passes(self, command: Command | None) -> bool:
        """Lockstep: whether this tick moves anything."""
        if self.pace == "realtime" or self.arm.is_guided or self.arm.hand.busy:
            return True
        if self.arm.in_motion:
            return command is not None or not self.arm.awaits_first_command
        return False

    def _settle(self) -> None:
        """Lockstep: after a motion, lets everything come to rest before a client is heard again."""
        arm = self.arm
        if arm.in_motion or arm.is_guided or arm.hand.busy:
            self._unsettled = True
        elif self._unsettled or arm.mode is RobotMode.AUTOMATIC_ERROR_RECOVERY:
            heard = self._clock()
            for _ in range(SETTLE_TICKS):
                if arm.at_rest:
                    break
                arm.tick(None)
                self._ticks += 1
                self._on_tick()
                if self._arm_session is not None and self._clock() - heard > SIGN_OF_LIFE_S:
                    heard = self._clock()
                    self._arm_session.send_state()
            self._unsettled = False

    def _schedule(self, began: float) -> None:
        """Sets when the next tick is due, after one that began at a time."""
        if self.pace == "realtime":
            late = began - self._due
            self.late_ticks += late > TOLERATED_S
            self._due = began + TICK_S - min(late, TOLERATED_S)
            return
        now = self._clock()
        if not self.arm.in_motion or self.arm.is_asynchronous:
            self._due = now + TICK_S
        elif self.arm.awaits_first_command:
            self._due = now + FIRST_COMMAND_PERIOD_S
        elif self._stands():
            self._due = now + CRAWL_S
        else:
            self._due = now + (PATIENCE_S if self._state_sent else 0.0)
