"""Ctrl-C and SIGTERM as an event, so that every node ends in its own order."""

import os
import signal
from threading import Event
from types import FrameType

__all__ = ["stop_on_signals"]


def stop_on_signals(*, say: bool = False) -> Event:
    """Returns an event that SIGINT and SIGTERM set; a second SIGINT interrupts at once.

    Args:
        say: Answers the signal with a line on standard error, where no live view does.
    """
    stop = Event()

    def handle(number: int, _: FrameType | None) -> None:
        stop.set()
        if say:
            os.write(2, b"\nstopping\n")  # print may not be called again while it is at work
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop
