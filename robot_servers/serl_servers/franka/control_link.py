"""The service's end of the control process: starts it, asks it, knows whether it lives, and ends it."""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import numpy as np

from serl_servers.franka.config import ControlSettings
from serl_servers.franka.driver import Array, DriverError
from serl_servers.franka.mailbox import Mailbox, make_record, read_text, write_text
from serl_servers.franka.records import CommandRecord, Phase, StateRecord
from serl_suite.control import ControlConfig

__all__ = ["ControlLink"]

START_TIMEOUT_S = 60.0
"""The first start on a machine compiles the law."""
END_TIMEOUT_S = 3.0
HUNG_S = 3.0
"""Longer than the arm's own time-outs, which end a motion in which no torque comes."""

_OF_A_PROCESS = (
    "phase", "ticks", "setpoint", "gains", "gains_refused", "load", "recover", "cut_off", "fault", "detail",
)  # fmt: skip
"""Fields of a state that begin anew with each process."""

_log = logging.getLogger(__name__)


class ControlLink:
    """One control process after another, over the same mailboxes' kind. Belongs to one thread.

    Args:
        settings: For the process.
    """

    def __init__(self, settings: ControlSettings) -> None:
        self._settings = settings
        self._asked, self.command = make_record(CommandRecord)
        self._told, self.state = make_record(StateRecord)
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when there is a new state."""
        self._process: subprocess.Popen[bytes] | None = None
        self._heard_at = 0.0

    @property
    def phase(self) -> Phase:
        return Phase(int(self.state.phase[0]))

    @property
    def fault(self) -> str:
        """The latched one's name; empty: none."""
        return read_text(self.state.fault)

    @property
    def detail(self) -> str:
        return read_text(self.state.detail)

    @property
    def needs_process(self) -> bool:
        """Whether only another control process reaches the arm again."""
        return self.phase is Phase.ENDED or bool(self.state.cut_off[0])

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Starts the process and waits until it has come to hold the arm, or to say why not.

        Raises:
            DriverError: It could not begin; says why.
        """
        for _ in self.starting():
            time.sleep(0.01)

    def starting(self) -> Iterator[None]:
        """The same, leaving the caller free until it looks again."""
        yield from self._ending()
        self._asked[:] = 0
        for name in _OF_A_PROCESS:  # the rest is how the arm was seen last
            getattr(self.state, name)[:] = 0
        self.command.posture[:] = np.nan
        self._set_gains(self._settings.control)
        self._inbox, self._outbox = Mailbox(self._asked.size), Mailbox(self._told.size)
        fds = (self._inbox.fd, self._outbox.fd, self.wake_fd)
        settings = msgspec.json.encode(
            msgspec.convert(
                {name: getattr(self._settings, name) for name in ControlSettings.__struct_fields__},
                ControlSettings,
            )
        )
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "serl_servers.franka.control_process",
                *map(str, fds), str(os.getpid()), settings.decode(),
            ],
            pass_fds=fds, stdin=subprocess.DEVNULL, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.phase is Phase.STARTING and time.monotonic() < deadline:
            self.beat()
            alive = self.alive
            self.look()
            if not alive:
                break
            yield
        if self.phase in (Phase.STARTING, Phase.ENDED):
            reason = self.detail or "the control process did not begin; its output says why"
            self.end()
            raise DriverError(reason)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def beat(self) -> None:
        """Publishes what is asked for; also a sign of life."""
        self.command.beat[0] += 1
        self._inbox.write(self._asked)

    def look(self) -> bool:
        """Takes the newest state; False where there is none. Notices a process that has died or hangs."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake_fd)
        if self._outbox.read(self._told):
            self._heard_at = time.monotonic()
            return True
        if self.phase is Phase.ENDED or self._process is None:
            return False
        if not self.alive:
            self._lost("control_process_died", f"the control process has ended ({self._process.returncode})")
        elif self.phase is not Phase.STARTING and time.monotonic() - self._heard_at > HUNG_S:
            self._process.kill()
            self._process.wait()
            self._lost("control_process_hung", f"the control process was silent for {HUNG_S:.0f} s")
        return False

    def _lost(self, fault: str, detail: str) -> None:
        detail += "; the arm stops by itself without its torques. Recovering starts a new control process"
        _log.error("stopped: %s (%s)", fault, detail)
        self.state.phase[0] = Phase.ENDED
        write_text(self.state.fault, fault)
        write_text(self.state.detail, detail)

    def follow(self, position: Array, quaternion: Array, posture: Array | None = None) -> int:
        """Asks for a setpoint, which goes stale; returns its number."""
        command = self.command
        command.setpoint[0] += 1
        command.following[0] = 1
        command.position[:], command.quaternion[:] = position, quaternion
        command.posture[:] = np.nan if posture is None else posture
        self.beat()
        return int(command.setpoint[0])

    def hold(self) -> None:
        """Slows down and holds, for as long as the service lives."""
        self.command.following[0] = 0
        self.beat()

    def stop(self) -> None:
        self.command.stop[0] += 1
        self.hold()

    def recover(self) -> None:
        """Asks for a recovery, which the state's number answers."""
        self.command.recover[0] += 1
        self.hold()

    def fill_tank(self) -> None:
        self.command.episode[0] += 1
        self.beat()

    def switch_gains(self, config: ControlConfig) -> None:
        """Asks for gains, which the state's number answers."""
        self._set_gains(config)
        self.command.gains[0] += 1
        self.beat()

    def set_load(self, mass: float, com: Array, inertia: Array) -> None:
        """Asks for a load, which the state's number answers."""
        command = self.command
        command.load_mass[0], command.load_com[:], command.load_inertia[:] = mass, com, inertia
        command.load[0] += 1
        self.hold()

    def end(self) -> None:
        """Ends the process, the arm at rest; twice is once."""
        for _ in self._ending():
            time.sleep(0.01)

    def _ending(self) -> Iterator[None]:
        """The same, leaving the caller free until it looks again."""
        if self._process is None:
            return
        self.command.end[0] = 1
        # without a connection there is no arm to bring to rest
        deadline = time.monotonic() + (0.0 if self.state.cut_off[0] else END_TIMEOUT_S)
        while self.alive and time.monotonic() < deadline:
            self.beat()
            yield
        if self.alive:
            self._process.kill()
        self._process.wait()
        self._process = None
        self._inbox.close()
        self._outbox.close()

    def _set_gains(self, config: ControlConfig) -> None:
        command = self.command
        command.stiffness[:], command.damping_ratio[0] = config.stiffness, config.damping_ratio
        command.clip_lower[:], command.clip_upper[:] = config.clip_lower, config.clip_upper
