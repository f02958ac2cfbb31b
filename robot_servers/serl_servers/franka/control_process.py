"""The control process: started by the service, with both mailboxes and an eventfd to wake it, as inherited
descriptors.

    python -m serl_servers.franka.control_process INBOX OUTBOX WAKE PARENT SETTINGS

It ends when it is told to, when it gets SIGTERM, and when the service is gone; each time the arm is brought to rest
first.
"""

import contextlib
import logging
import os
import signal
import sys
from types import FrameType

import msgspec

from serl_servers.franka.config import TICK_S, ControlSettings, joint_limits, make_driver
from serl_servers.franka.control_loop import ControlLoop
from serl_servers.franka.mailbox import Mailbox, make_record, write_text
from serl_servers.franka.realtime import end_with_parent, make_realtime
from serl_servers.franka.records import CommandRecord, Phase, StateRecord
from serl_suite.control import make_parameters
from serl_suite.errors import SerlError

__all__ = ["main"]

LOOKED_AFTER_TICKS = 100
"""How often it looks whether its parent is still there."""

_log = logging.getLogger(__name__)


class _Ending:
    """Whether it is time to go."""

    def __init__(self, parent: int) -> None:
        self._parent, self._asked, self._ticks = parent, False, 0
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_with_parent(signal.SIGTERM)

    def due(self, loop: ControlLoop) -> bool:
        self._ticks += 1
        if self._ticks % LOOKED_AFTER_TICKS == 0 and os.getppid() != self._parent:
            self._asked = True
        return self._asked or loop.asked_to_end

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True


def main(arguments: list[str]) -> int:
    """Runs until it is told to end; 0, or 1 where it could not begin."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s control: %(message)s")
    *numbers, text = arguments
    inbox_fd, outbox_fd, wake_fd, parent = map(int, numbers)
    settings = msgspec.json.decode(text, type=ControlSettings)
    ending = _Ending(parent)
    inbox = Mailbox(make_record(CommandRecord)[0].size, inbox_fd)
    told, state = make_record(StateRecord)
    outbox = Mailbox(told.size, outbox_fd)

    def wake() -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(wake_fd, 1)

    try:
        parameters = make_parameters(settings.control, joint_limits(), TICK_S)
        loop = ControlLoop(make_driver(settings), parameters, inbox, outbox, wake)
        loop.prepare()
    except SerlError as error:
        state.phase[0] = Phase.ENDED
        write_text(state.fault, "not_started")
        write_text(state.detail, str(error))
        outbox.write(told)
        wake()
        return 1
    write_text(loop.state.realtime, "\n".join(make_realtime(settings.core)))
    loop.start()
    run(loop, ending)
    return 0


def run(loop: ControlLoop, ending: _Ending) -> None:
    """Turns until it is time to go, then until the arm is at rest."""
    while not ending.due(loop):
        loop.turn()
    loop.brake("ended", "the server was ended")
    while loop.phase is not Phase.STOPPED:
        loop.turn()
    loop.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
