"""What takes longer than an answer: resets, recovery, gains, load. Each is a generator that goes on with each new state
of the arm, and is done when it ends."""

import time
from collections.abc import Callable, Iterator

import numpy as np

from serl_servers.franka.checks import check_load, check_pose, checked_gains
from serl_servers.franka.config import joint_limits
from serl_servers.franka.control_link import ControlLink
from serl_servers.franka.driver import Array
from serl_servers.franka.hand import Hand
from serl_servers.franka.records import Gains, Phase
from serl_servers.franka.resets import cartesian_reset, joint_reset, require_running
from serl_servers.franka.transfers import home_hand, pick_up, put_down
from serl_servers.front import Refusal
from serl_suite.control import ControlConfig
from serl_suite.wire.robot_messages import (
    AnyRequest,
    HomeGripper,
    PickUp,
    PutDown,
    Recover,
    Reset,
    ResetJoints,
    SetGains,
    SetLoad,
)

__all__ = ["Operations"]

ANSWER_S = 5.0

_GAINS_REFUSED = {
    Gains.TOO_DEAR: "the energy tank cannot pay for these gains here; reset, or go closer to the target",
    Gains.UNSTABLE: "these gains are above the bound for the tick's rate; lower stiffness or damping ratio",
}


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

    def begin(self, request: AnyRequest, hand: Hand | None) -> Iterator[None]:
        """Checks what is asked, and returns what does it.

        Args:
            request: Of the controlling client.
            hand: As it is now; a recovery may bring another.

        Raises:
            Refusal: It cannot be done; so does the generator, later.
        """
        link = self._link
        if isinstance(request, Recover):
            return self._recover()
        require_running(link)
        match request:
            case Reset():
                pose = self._pose(request)
                return cartesian_reset(link, self.config, *pose, straight=request.straight)
            case ResetJoints():
                return joint_reset(link, self.config, np.array(request.q))
            case SetGains():
                return self._set_gains(checked_gains(self.config, self._limits, request, link.state))
            case SetLoad():
                check_load(request, link.state)
                return self._set_load(request)
        if isinstance(request, PickUp | PutDown | HomeGripper):
            if hand is None:
                raise Refusal("this arm has no hand")
            return self._use_hand(request, hand)
        raise Refusal(f"{type(request).__name__} is nothing that this server does")

    def _use_hand(self, request: PickUp | PutDown | HomeGripper, hand: Hand) -> Iterator[None]:
        if isinstance(request, HomeGripper):
            return home_hand(self._link, hand)
        pose = self._pose(request)
        if isinstance(request, PutDown):
            return put_down(self._link, hand, self.config, *pose, request.approach_m)
        return pick_up(self._link, hand, self.config, *pose, request.approach_m, request.force_n)

    def _pose(self, request: Reset | PickUp | PutDown) -> tuple[Array, Array]:
        check_pose(self.config, request)
        return np.array(request.position), np.array(request.quaternion) / np.linalg.norm(request.quaternion)

    def _recover(self) -> Iterator[None]:
        link = self._link
        for _ in range(2):  # that the arm has gone meanwhile may come out only now
            if link.needs_process:
                yield from link.starting()
                self.config = self._started_with
            if link.fault:  # of the arm itself, too, where it was cut off in motion
                yield from self._clear()
            if not link.needs_process:
                break
        if link.fault:
            raise Refusal(f"{link.fault} stays: {link.detail}")

    def _clear(self) -> Iterator[None]:
        """Until the fault is cleared, or stays, or another process is needed."""
        link = self._link
        link.recover()
        asked = int(link.command.recover[0])
        yield from self._until(lambda: link.needs_process or link.state.recover[0] == asked, "recover")

    def _set_gains(self, asked: ControlConfig) -> Iterator[None]:
        link = self._link
        link.switch_gains(asked)
        number = int(link.command.gains[0])
        yield from self._until(lambda: link.state.gains[0] == number, "switch the gains")
        answer = Gains(int(link.state.gains_refused[0]))
        if answer is not Gains.TAKEN:
            raise Refusal(_GAINS_REFUSED[answer])
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
