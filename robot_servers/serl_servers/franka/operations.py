"""What takes longer than an answer: resets, recovery, gains, load. Each is a generator that goes on with each new state
of the arm, and is done when it ends."""

import logging
import time
from collections.abc import Callable, Iterator

import numpy as np

from serl_servers.franka.checks import check_load, check_pose, checked_gains
from serl_servers.franka.config import joint_limits
from serl_servers.franka.control_link import ControlLink
from serl_servers.franka.records import Phase
from serl_servers.franka.resets import Refusal, cartesian_reset, joint_reset, require_running
from serl_suite.control import ControlConfig
from serl_suite.wire.robot_messages import AnyRequest, Recover, Reset, ResetJoints, SetGains, SetLoad

__all__ = ["Operations"]

RECOVERY_PERIOD_S = 2.0
"""Recoveries come no faster: whoever recovers before every command hides collisions."""
ANSWER_S = 5.0

_log = logging.getLogger(__name__)


class Operations:
    """Begins them.

    Args:
        link: To the control process.
        config: With which that has started.
    """

    def __init__(self, link: ControlLink, config: ControlConfig) -> None:
        self.config = config
        """In force: its gains change."""
        self._started_with = config
        self._link, self._limits = link, joint_limits()
        self._recovered_at = -RECOVERY_PERIOD_S

    def begin(self, request: AnyRequest) -> Iterator[None]:
        """Checks what is asked, and returns what does it.

        Raises:
            Refusal: It cannot be done; so does the generator, later.
        """
        link = self._link
        if isinstance(request, Recover):
            return self._recover(request.reason)
        require_running(link)
        match request:
            case Reset():
                check_pose(self.config, request)
                quaternion = np.array(request.quaternion) / np.linalg.norm(request.quaternion)
                position = np.array(request.position)
                return cartesian_reset(link, self.config, position, quaternion, straight=request.straight)
            case ResetJoints():
                return joint_reset(link, self.config, np.array(request.q))
            case SetGains():
                return self._set_gains(checked_gains(self.config, self._limits, request, link.state))
            case SetLoad():
                check_load(request, link.state)
                return self._set_load(request)
        raise Refusal(f"{type(request).__name__} is nothing that this server does")

    def _recover(self, reason: str) -> Iterator[None]:
        link, now = self._link, time.monotonic()
        if not link.fault:
            raise Refusal("there is no fault to recover from")
        if now - self._recovered_at < RECOVERY_PERIOD_S:
            raise Refusal(
                f"the last recovery was {now - self._recovered_at:.1f} s ago; at most one in "
                f"{RECOVERY_PERIOD_S:.0f} s: find out what stops the arm"
            )
        self._recovered_at = now
        _log.warning("recovering from %s: %s", link.fault, reason)
        if link.phase is Phase.ENDED or link.fault == "connection_lost":
            yield from link.starting()
            self.config = self._started_with
        else:
            link.recover()
            asked = int(link.command.recover[0])
            yield from self._until(lambda: link.state.recover[0] == asked, "recover")
        if link.fault:
            raise Refusal(f"{link.fault} stays: {link.detail}")

    def _set_gains(self, asked: ControlConfig) -> Iterator[None]:
        link = self._link
        link.switch_gains(asked)
        number = int(link.command.gains[0])
        yield from self._until(lambda: link.state.gains[0] == number, "switch the gains")
        if link.state.gains_refused[0]:
            raise Refusal(
                "the energy tank cannot pay for these gains here; reset, or go closer to the target"
            )
        self.config = asked

    def _set_load(self, request: SetLoad) -> Iterator[None]:
        link = self._link
        link.set_load(request.mass, np.array(request.com), np.array(request.inertia))
        number = int(link.command.load[0])
        yield from self._until(lambda: link.state.load[0] == number, "set the load")
        require_running(link)

    def _until(self, condition: Callable[[], bool], what: str) -> Iterator[None]:
        deadline = time.monotonic() + ANSWER_S
        while not condition():
            if time.monotonic() > deadline or self._link.phase is Phase.ENDED:
                raise Refusal(
                    f"the control process did not {what}: {self._link.detail or 'it does not answer'}"
                )
            yield
