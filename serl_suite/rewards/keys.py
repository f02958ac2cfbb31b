"""A person's key press as reward: a terminal read without waiting for it."""

import errno
import os
import select
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from serl_suite.errors import SerlError
from serl_suite.rewards.reward import Verdict
from serl_suite.wire.messages import Observation

__all__ = ["KeyReward", "NoTerminal", "terminal_given_back", "terminal_of_this_process"]

TERMINAL_VARIABLE = "SERL_TERMINAL"
"""Tells a process without a terminal of its own which one its starter has."""

SUCCESS, FAILURE = frozenset(b"s \r\n"), frozenset(b"f\x7f")
"""s, space and Enter; f and backspace."""


class NoTerminal(SerlError):
    """There is no terminal to press a key at."""


def terminal_of_this_process() -> dict[str, str]:
    """For the environment of a process that it starts: the terminal at which the person sits; empty: there is none."""
    return {TERMINAL_VARIABLE: os.ttyname(0)} if os.isatty(0) else {}


@contextmanager
def terminal_given_back() -> Iterator[None]:
    """However a process that reads keys ends, this process's terminal is in the end as it was."""
    before = termios.tcgetattr(0) if os.isatty(0) else None
    try:
        yield
    finally:
        if before is not None:
            termios.tcsetattr(0, termios.TCSANOW, before)


class KeyReward:
    """s, space or Enter marks a success, f or backspace a failure; the last one pressed since the last look counts.

    The terminal gives each key at once and unseen while this is open; Ctrl-C works as ever. What was pressed before an
    episode began does not count.

    Args:
        terminal: Path of the device; empty: this process's, or its starter's.

    Raises:
        NoTerminal: It is none, or cannot be opened.
    """

    def __init__(self, terminal: str) -> None:
        terminal = terminal or os.environ.get(TERMINAL_VARIABLE, "/dev/tty")
        try:
            self._device = os.open(terminal, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            raise NoTerminal(
                f"no key can be read from {terminal} ({error.strerror}); start this in a terminal, or name "
                "one: --reward key:DEVICE, with what `tty` prints there"
            ) from error
        try:
            self._before = termios.tcgetattr(self._device)
            tty.setcbreak(self._device, termios.TCSANOW)
        except termios.error as error:
            os.close(self._device)
            raise NoTerminal(f"{terminal} is no terminal; name what `tty` prints in one") from error
        self._open = True

    def reset(self) -> None:
        """Forgets what was pressed until now."""
        self._pressed()

    def judge(self, observation: Observation, truth: bool | None = None) -> Verdict:
        """What was pressed since the last call; takes microseconds."""
        for key in reversed(self._pressed()):
            if key in SUCCESS:
                return Verdict(True, 1.0)
            if key in FAILURE:
                return Verdict(False, 0.0, failure=True)
        return Verdict(False, 0.0)

    def close(self) -> None:
        """Gives the terminal back as it was; twice is once."""
        if self._open:
            self._open = False
            with suppress(termios.error):  # it may have gone
                termios.tcsetattr(self._device, termios.TCSANOW, self._before)
            os.close(self._device)

    def _pressed(self) -> bytes:
        """Raises: NoTerminal, where it went away."""
        pressed = b""
        try:
            while select.select([self._device], [], [], 0)[0]:
                chunk = os.read(self._device, 256)
                if not chunk:  # only a terminal that was hung up is readable and has nothing
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                pressed += chunk
        except OSError as error:
            raise NoTerminal(
                f"the terminal at which a key was to be pressed went away ({error.strerror}); start again in another"
            ) from error
        return pressed
