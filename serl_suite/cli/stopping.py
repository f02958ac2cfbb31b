"""Ctrl-C and SIGTERM as an event, so that every node ends in its own order."""

import signal
from threading import Event
from types import FrameType

__all__ = ["stop_on_signals"]


def stop_on_signals() -> Event:
    """Returns an event that SIGINT and SIGTERM set; a second SIGINT interrupts at once."""
    stop = Event()

    def handle(number: int, _: FrameType | None) -> None:
        stop.set()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop
