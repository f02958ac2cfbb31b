"""What a process can do to be on time, and what the kernel made of it."""

import ctypes
import gc
import ipaddress
import os
import platform
from pathlib import Path

from serl_servers.franka.driver import DriverError

__all__ = ["SERVICE_PRIORITY", "end_with_parent", "make_realtime", "require_realtime", "take_priority"]

PRIORITY = 80
"""SCHED_FIFO: above the kernel's own interrupt threads (50), below its watchdogs (99)."""
SERVICE_PRIORITY = 10
"""Of the service, which hands on setpoints: above all that is not real-time, below everything that is."""
MCL_CURRENT, MCL_FUTURE = 1, 2
PR_SET_PDEATHSIG = 1
WAKE_LATENCY = Path("/dev/cpu_dma_latency")
"""Takes within how many microseconds (32 bits) the machine's cores have to wake up, for as long as it is held open."""


def end_with_parent(signal_number: int) -> None:
    """Has the kernel send a signal to this process when its parent ends, however that happens."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)


def require_realtime(ip: str) -> None:
    """An arm of metal is not controlled from a kernel that may be late; a twin on this machine may be.

    Raises:
        DriverError: Says what to install, or how to go without.
    """
    if not _is_realtime_kernel() and not _is_loopback(ip):
        raise DriverError(
            f"the kernel {platform.release()} is not real-time (PREEMPT_RT), and the arm at {ip} ends a motion after "
            "20 late milliseconds; boot a real-time kernel, or go without with --no-require-realtime"
        )


def make_realtime(core: int | None) -> list[str]:
    """Locks memory, stops the garbage collector, takes priority and a core, keeps the cores awake; returns a line on
    each.

    What is not permitted is said and gone without.

    Args:
        core: The only one to run on; None: whichever is free.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    return [_lock_memory(), take_priority(PRIORITY), _take_core(core), _stay_awake(), _kernel()]


def _lock_memory() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE) == 0:
        return "memory: locked"
    return (
        f"memory: NOT locked ({os.strerror(ctypes.get_errno())}); raise memlock in /etc/security/limits.conf"
    )


def take_priority(priority: int) -> str:
    """Takes a real-time priority for this thread and those that it starts; returns a line on that."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return "priority: NOT real-time; raise rtprio to 99 in /etc/security/limits.conf"
    return f"priority: FIFO {priority}"


def _take_core(core: int | None) -> str:
    if core is None:
        return f"core: any of {len(os.sched_getaffinity(0))}"
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        return f"core: NOT {core} ({error.strerror}); this machine has 0..{(os.cpu_count() or 1) - 1}"
    return f"core: {core}"


def _stay_awake() -> str:
    """A core that has gone to sleep may take longer to wake up than the tick has."""
    try:
        held = os.open(WAKE_LATENCY, os.O_WRONLY)  # until this process ends
        os.write(held, bytes(4))
    except OSError as error:
        return f"sleep: cores NOT kept awake ({error.strerror}); let this user write {WAKE_LATENCY}"
    return "sleep: cores are kept awake"


def _kernel() -> str:
    if _is_realtime_kernel():
        return "kernel: PREEMPT_RT"
    return "kernel: NOT PREEMPT_RT; expect lost packets under load"


def _is_realtime_kernel() -> bool:
    return "PREEMPT_RT" in platform.version()


def _is_loopback(ip: str) -> bool:
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:  # a name
        return ip == "localhost"
