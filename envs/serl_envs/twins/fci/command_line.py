"""`serl twin franka`: an arm with hand in MuJoCo at the ports of a real one."""

import difflib
import gc
import importlib
import ipaddress
import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Protocol

import msgspec
import tyro

from serl_envs.registration import TASKS
from serl_envs.twins.fci.impairment import Network
from serl_envs.twins.fci.pace import Pace
from serl_suite.cli.stopping import stop_on_signals
from serl_suite.errors import SerlError

if TYPE_CHECKING:
    from serl_envs.tasks.task import Task
    from serl_envs.twins.fci.arm import Arm

__all__ = ["InvalidTwin", "run"]

log = logging.getLogger(__name__)

PRIORITY = 70
"""SCHED_FIFO: below the 80 of the robot server's control process, which has to answer in time."""

DESCRIPTION = """Simulate a Franka Research 3 with hand that speaks the arm's own wire protocol (FCI 10).

  serl twin franka --port-ip 127.0.0.1
  serl twin franka --port-ip 127.0.0.2 --task FrankaPickCube-v0 --mode lockstep --seed 3

Whatever connects to a real arm connects to this one: ports 1337 (arm) and 1338 (hand) of the address. The ports are
fixed, so several twins on one machine take an address each: 127.0.0.2, 127.0.0.3, ...
What no real arm has is at port 1339: where the things in the scene are, and putting them elsewhere (loopback only).
Ctrl-C ends it; `kill -USR1` presses the user stop, and releases it the next time; `kill -USR2` does so with the button
that lets a person lead the arm by hand."""


class InvalidTwin(SerlError):
    """A twin that can't be made of what was asked for."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated, and how its time passes."""

    port_ip: str = "127.0.0.1"
    """IPv4 address to listen at."""
    task: str = "FrankaPegInsert-v0"
    """Whose scene stands around the arm; `serl tasks` lists them."""
    mode: Pace = "realtime"
    """In lockstep a motion waits for each command, and what happens depends on the commands alone."""
    seed: int = 0
    """Of the task's start and of the network's moods."""
    loss: float = 0.0
    """Probability that a state or a command gets lost."""
    delay_ms: int = 0
    """By how many milliseconds commands are late."""
    jitter_ms: int = 0
    """And by how many more at most, at random."""
    urgent: bool = False
    """Takes real-time priority in lockstep, too, where it may. Nobody is late there, but beside a robot server and its
    clients on two cores it is faster so; other work on them is slower."""
    rk4: bool = False
    """Integrates by Runge-Kutta, for energy audits; a tick then costs about half as much again."""
    seconds: float = 0.0
    """Ends after this long; 0 never."""
    log: Path | None = None
    """Receives every simulated millisecond at the end (npz)."""
    render: Path | None = None
    """Receives a film at the end (mp4)."""


class _Record(Protocol):
    def add(self) -> None:
        """Takes note of a millisecond."""

    def save(self, path: Path) -> None:
        """Writes the file."""


def run(arguments: Sequence[str]) -> int:
    """Serves until it is told to stop; 0.

    Raises:
        SerlError: Naming what is wrong with an option, or who has the address.
    """
    options = tyro.cli(Options, args=list(arguments), prog="serl twin franka", description=DESCRIPTION)
    network = _checked(options)
    task = make_task(options.task)
    # MuJoCo is imported from here on: wrong options have been refused by now.
    from serl_envs.twins.fci.build import make_arm
    from serl_envs.twins.fci.scene_channel import SceneChannel
    from serl_envs.twins.fci.server import TwinServer

    stop = stop_on_signals()
    user_stop, guiding = _button_on(signal.SIGUSR1), _button_on(signal.SIGUSR2)
    arm = make_arm(task, options.seed, rk4=options.rk4)
    records = _records(options, arm)

    def on_tick() -> None:
        for record in records.values():
            record.add()

    scene = None
    if ipaddress.IPv4Address(options.port_ip).is_loopback:
        scene = SceneChannel(arm, options.port_ip, options.task, lockstep=options.mode == "lockstep")
    server = TwinServer(arm, options.port_ip, options.mode, network=network, scene=scene, on_tick=on_tick)
    print(  # noqa: T201
        f"FR3 with {options.task} at {options.port_ip}, ports 1337 and 1338, {options.mode}; Ctrl-C ends it",
        flush=True,
    )
    if options.urgent or options.mode == "realtime":
        _take_priority()
    # What was made so far stays: a collector that looks through it now and then would cost the arm milliseconds.
    gc.freeze()
    end = time.monotonic() + options.seconds if options.seconds else float("inf")
    server.serve(lambda: stop.is_set() or time.monotonic() > end, user_stop.is_set, guiding.is_set)
    if options.mode == "realtime":
        log.info("%d ticks came late", server.late_ticks)
    for path, record in records.items():
        record.save(path)
    return 0


def _take_priority() -> None:
    """A real arm's master controller is a real-time machine; a twin without that right is late more often."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except PermissionError:
        log.warning(
            "no right to real-time priority, so ticks will come late more often; run as root, or allow it: "
            "ulimit -r %d (rtprio in /etc/security/limits.conf)",
            PRIORITY,
        )


def _records(options: Options, arm: "Arm") -> dict[Path, _Record]:
    """What is recorded, by the file that receives it. What a film needs takes seconds to import."""
    records: dict[Path, _Record] = {}
    if options.log is not None:
        from serl_envs.twins.fci.state_log import StateLog

        records[options.log] = StateLog(arm)
    if options.render is not None:
        from serl_envs.twins.fci.film import Filming

        records[options.render] = Filming(arm.plant)
    return records


def make_task(task_id: str) -> "Task":
    """Returns the task of an id.

    Raises:
        InvalidTwin: No Franka task has it; names the nearest.
    """
    if task_id not in TASKS:
        near = difflib.get_close_matches(task_id, TASKS, n=1, cutoff=0.4) or list(TASKS)
        raise InvalidTwin(f"no task {task_id!r}; did you mean {' or '.join(near)}?")
    module, name = TASKS[task_id].split(":")
    task: Task = getattr(importlib.import_module(module), name)()
    return task


def _checked(options: Options) -> Network:
    try:
        ipaddress.IPv4Address(options.port_ip)
    except ValueError as error:
        raise InvalidTwin(f"--port-ip {options.port_ip!r} is no IPv4 address; take 127.0.0.1") from error
    if not 0 <= options.loss < 1:
        raise InvalidTwin(f"--loss {options.loss} is no probability below 1")
    if options.delay_ms < 0 or options.jitter_ms < 0:
        raise InvalidTwin("--delay-ms and --jitter-ms are whole milliseconds, 0 or more")
    for path in (options.log, options.render):
        if path is not None and not path.absolute().parent.is_dir():
            raise InvalidTwin(f"the folder of {path} does not exist; make it first")
    return Network(options.loss, options.delay_ms, options.jitter_ms, options.seed)


def _button_on(number: signal.Signals) -> Event:
    """A button that a signal presses, and the next one releases."""
    pressed = Event()

    def handle(*_: object) -> None:
        if pressed.is_set():
            pressed.clear()
        else:
            pressed.set()

    signal.signal(number, handle)
    return pressed
