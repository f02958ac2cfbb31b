"""A client of a robot server: asks, waits for answers, and sees the newest state of the arm."""

import math
import os
import time
from collections.abc import Callable

import zmq

from serl_suite.errors import SerlError
from serl_suite.wire.endpoint import connect_dealer, encrypt
from serl_suite.wire.keys import ClientKeys
from serl_suite.wire.robot_messages import (
    AnyAnswer,
    ArmState,
    Heartbeat,
    Refused,
    Release,
    Request,
    TakeControl,
    decode_answer,
    decode_state,
    encode,
    state_address,
)

__all__ = ["RobotClient", "RobotRefused", "RobotUnreachable"]

MAX_MESSAGE_BYTES = 64 * 1024
SILENCE_MS = 1000
"""A server silent for so long is gone."""
FRESH_S = 0.1
RENEWAL_S = 0.3
"""Control is asked for again after so long without a request; it expires after 1 s."""
ANSWER_S = 3.0
FAREWELL_MS = 300


class RobotRefused(SerlError):
    """The robot server did not do what was asked, or not to the end; it says why."""


class RobotUnreachable(SerlError):
    """The robot server does not answer."""


class RobotClient:
    """Belongs to one thread, and has no other: where that hangs, the server notices.

    Args:
        address: Of the robot server, tcp://HOST:PORT.
        keys: Needed where it is on another machine.
        name: Under which the server shows who is in control.

    Raises:
        AddressError: The address is none, or on another machine and there are no keys.
        RobotUnreachable: No server answers there.
    """

    def __init__(self, address: str, keys: ClientKeys | None = None, *, name: str) -> None:
        self.address, self._name = address, f"{name} ({os.getpid()})"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = connect_dealer(self._context, address, keys, MAX_MESSAGE_BYTES)
        self._states = self._context.socket(zmq.SUB)
        self._states.set(zmq.CONFLATE, 1)
        self._states.set(zmq.LINGER, 0)
        self._states.set(zmq.RECONNECT_IVL, 50)
        self._states.set(zmq.SUBSCRIBE, b"")
        encrypt(self._states, keys)
        self._states.connect(state_address(address))
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._number = 0
        self._asked_at = -math.inf
        self._controls = self._closed = False
        try:
            self.state = self.await_state()
        except RobotUnreachable:
            self.close()
            raise

    def next_number(self) -> int:
        """The number of the next request."""
        self._number += 1
        return self._number

    def newest(self) -> ArmState:
        """The newest state; waits for one if the last is not fresh.

        Raises:
            RobotUnreachable: The server is silent.
        """
        if self._states.poll(0) or time.monotonic() - self._heard_at > FRESH_S:
            return self.await_state()
        return self.state

    def has_news(self, within_s: float) -> bool:
        """Waits for a state that has not been taken yet; whether there is one."""
        return bool(self._states.poll(int(within_s * 1e3)))

    def await_state(self) -> ArmState:
        """Waits for the next state.

        Raises:
            RobotUnreachable: The server is silent.
        """
        if not self._states.poll(SILENCE_MS):
            raise RobotUnreachable(
                f"the robot server at {self.address} is silent; start it with `serl robot franka`, or look why it ended"
            )
        self.state = decode_state(self._states.recv())
        self._heard_at = time.monotonic()
        return self.state

    def keep_control(self) -> None:
        """Takes control of the arm, or makes sure that it is still there.

        Raises:
            RobotRefused: Somebody else has it.
            RobotUnreachable: The server does not answer.
        """
        if not self._controls or time.monotonic() - self._asked_at > RENEWAL_S:
            self.take_control()

    def take_control(self) -> None:
        """Takes control of the arm, even where it seems to be here already.

        Raises:
            RobotRefused: Somebody else has it.
            RobotUnreachable: The server does not answer.
        """
        self._controls = False
        self.ask(TakeControl(number=self.next_number(), client=self._name))
        self._controls = True

    def release(self) -> None:
        """Gives control to whoever wants it; the arm holds."""
        if self._controls:
            self._controls = False
            self.send(Release(number=self.next_number()))

    def send(self, request: Request) -> None:
        """Sends without waiting for an answer."""
        self._asked_at = time.monotonic()
        try:
            self._socket.send(encode(request), zmq.NOBLOCK)
        except zmq.Again:
            raise RobotUnreachable(f"the robot server at {self.address} takes no more requests") from None

    def ask(
        self,
        request: Request,
        timeout_s: float = ANSWER_S,
        *,
        after: Request | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> AnyAnswer:
        """Sends and waits for the answer, keeping control meanwhile.

        Args:
            request: What is asked.
            timeout_s: For the answer.
            after: Sent before it. The server takes requests in order, so that the answer says that it has this one.
            meanwhile: Called again and again until the answer is there.

        Raises:
            RobotRefused: With the server's reason; one of the two was refused.
            RobotUnreachable: No answer came.
        """
        numbers = {request.number}
        if after is not None:
            numbers.add(after.number)
            self.send(after)
        self.send(request)
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0.0:
            if meanwhile is not None:
                meanwhile()
                left = 0.0
            if self._poller.poll(int(min(left, RENEWAL_S) * 1e3) + 1):
                for answer in self.answers():
                    if answer.number in numbers:
                        if isinstance(answer, Refused):
                            raise RobotRefused(answer.reason)
                        return answer
            elif self._controls:
                self.send(Heartbeat(number=self.next_number()))
        raise RobotUnreachable(f"the robot server at {self.address} did not answer {type(request).__name__}")

    def answers(self) -> list[AnyAnswer]:
        """What has come and was not waited for."""
        answers = []
        while self._socket.poll(0):
            answers.append(decode_answer(self._socket.recv()))
        return answers

    def close(self) -> None:
        """Gives control back, upon which the arm holds, and closes the connection; twice is once."""
        if self._closed:
            return
        self._closed = True
        self.release()
        self._socket.close(FAREWELL_MS)
        self._states.close(0)
        self._context.term()
