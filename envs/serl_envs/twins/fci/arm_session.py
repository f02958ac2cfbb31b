"""One client of the arm: its requests over TCP, and state and commands over UDP."""

import logging
import socket
from collections.abc import Callable

from serl_hardware.franka.urdf import write_urdf

from serl_envs.twins.fci.arm import Arm
from serl_envs.twins.fci.arm_packets import (
    CONNECT,
    CONNECT_REPLY,
    HEADER,
    PAYLOAD_BYTES,
    VERSION,
    ArmCommand,
    MoveStatus,
    RobotMode,
    Status,
)
from serl_envs.twins.fci.command import Command, decode_command
from serl_envs.twins.fci.connection import Greeting, Request, Session

__all__ = ["ArmSession"]

_log = logging.getLogger(__name__)

RECOVERY_REFUSED_BY_SAFETY_FUNCTION = 2
"""Recovery and StopMove number their replies differently from the Set commands."""

_GREETING = Greeting("arm", VERSION, HEADER, CONNECT, CONNECT_REPLY)


class ArmSession(Session):
    """Answers requests out of the arm, tells it when its motions have ended, and hands over datagrams.

    Args:
        stream: The client's TCP connection; owned.
        peer: Its address.
        arm: Shared by the sessions, one after another.
        address: From which states are sent, and at which commands are received.
    """

    def __init__(self, stream: socket.socket, peer: str, arm: Arm, address: str) -> None:
        super().__init__(_GREETING, stream, peer, address)
        self._arm = arm
        self._move: Request | None = None
        self._recovery: Request | None = None
        self._urdf = write_urdf().encode()
        self._answers: dict[ArmCommand, Callable[[Request], None]] = {
            ArmCommand.MOVE: self._start_move,
            ArmCommand.STOP_MOVE: self._stop_move,
            ArmCommand.AUTOMATIC_ERROR_RECOVERY: self._recover,
            ArmCommand.GET_ROBOT_MODEL: lambda request: self._reply(request, bytes([0]) + self._urdf),
        }

    @property
    def last_sent(self) -> int:
        """Number of the newest state."""
        return int(self._arm.telemetry.packet["message_id"])

    def report(self) -> None:
        """Tells the client how its motion or its recovery has ended, if it has."""
        outcome, self._arm.outcome = self._arm.outcome, None
        if outcome is not None and self._move is not None:
            self._reply(self._move, bytes([outcome]))
            self._move = None
        if self._recovery is not None and self._arm.mode is not RobotMode.AUTOMATIC_ERROR_RECOVERY:
            # whoever reads a state after the reply sees what the reply says
            self._arm.tick(None, physics=False)
            self.send_state()
            stopped = self._arm.mode is RobotMode.USER_STOPPED
            self._reply(
                self._recovery, bytes([RECOVERY_REFUSED_BY_SAFETY_FUNCTION if stopped else Status.SUCCESS])
            )
            self._recovery = None

    def send_state(self) -> None:
        """Sends the arm's newest state."""
        self._send(self._arm.telemetry.packet.tobytes())

    def receive(self) -> list[Command]:
        """Returns the commands that have arrived, in that order; anything else that has is dropped."""
        commands: list[Command] = []
        while self.datagrams is not None:
            try:
                packet = self.datagrams.recv(2048)
            except OSError:  # nothing more, or the client has gone, which TCP tells
                break
            command = decode_command(packet)
            if command is not None:
                commands.append(command)
        return commands

    def _part(self) -> None:
        self._arm.stop_move()
        self._arm.outcome = None
        for request, status in ((self._move, MoveStatus.ABORTED), (self._recovery, Status.NOT_POSSIBLE)):
            if request is not None and self.connection.broken is None:
                self._reply(request, bytes([status]))

    def _connect(self, request: Request) -> None:
        super()._connect(request)
        self.send_state()  # at once: whoever connects waits for it

    def _handle(self, request: Request) -> None:
        if request.command not in PAYLOAD_BYTES or request.command == ArmCommand.CONNECT:
            _log.warning("no command has number %d", request.command)
            self._reply(request, bytes([Status.NOT_POSSIBLE]))
            return
        command = ArmCommand(request.command)
        if len(request.payload) != PAYLOAD_BYTES[command]:
            _log.warning("%s came with %d bytes of payload", command.name, len(request.payload))
            refused = MoveStatus.INVALID_ARGUMENT if command is ArmCommand.MOVE else Status.INVALID_ARGUMENT
            self._reply(request, bytes([refused]))
        elif command in self._answers:
            self._answers[command](request)
        else:
            self._reply(request, bytes([self._arm.set_up(command, request.payload)]))

    def _start_move(self, request: Request) -> None:
        status = self._arm.start_move(request.payload)
        if status is MoveStatus.STARTED:
            self._move = request
        self._reply(request, bytes([status]))

    def _stop_move(self, request: Request) -> None:
        self._arm.stop_move()
        self._reply(request, bytes([Status.SUCCESS]))
        self.report()

    def _recover(self, request: Request) -> None:
        if self._arm.in_motion or self._recovery is not None:
            self._reply(request, bytes([Status.NOT_POSSIBLE]))
            return
        if self._arm.mode is not RobotMode.USER_STOPPED:
            self._arm.recover()
        self._recovery = request
        self.report()

    def _reply(self, request: Request, payload: bytes) -> None:
        self.connection.reply(request, payload)
