"""The workstation: kernel, permissions, processor, disk, packages."""

import importlib.metadata
import importlib.util
import ipaddress
import os
import platform
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from serl_servers.doctor.finding import Finding, failed, ok, warning
from serl_suite.rig import Rig

__all__ = ["check_machine"]

PRIORITY = 80
"""What the control process asks for."""
ROOMY_BYTES, FULL_BYTES = 5 * 2**30, 2**28
LIMITS = "in /etc/security/limits.conf, then log in again"
GOVERNORS = Path("/sys/devices/system/cpu")
WAKE_LATENCY = Path("/dev/cpu_dma_latency")
"""With which the control process keeps the cores awake."""


def check_machine(rig: Rig, folder: Path) -> Iterator[Finding]:
    """Yields what the workstation is like.

    Args:
        rig: To be run on it.
        folder: Where runs are written to.
    """
    yield _kernel(rig)
    yield _limit("priority", resource.RLIMIT_RTPRIO, PRIORITY, f"add `@realtime - rtprio 99` {LIMITS}")
    yield _limit(
        "memory",
        resource.RLIMIT_MEMLOCK,
        resource.RLIM_INFINITY,
        f"add `@realtime - memlock unlimited` {LIMITS}",
    )
    yield _governor(GOVERNORS)
    yield _sleep(WAKE_LATENCY)
    yield _cores(rig)
    yield _disk(folder)
    if rig.driver == "ros2":
        yield _ros2()
    else:
        yield _package(
            "pylibfranka", "pip install 'serl-suite[franka]' (Linux with glibc 2.34 or newer)", needed=True
        )
    yield _package("ruckig", "resets then take slower paths; pip install 'serl-suite[franka]'", needed=False)


def _kernel(rig: Rig) -> Finding:
    release = platform.release()
    if "PREEMPT_RT" in platform.version():
        return ok("kernel", f"{release}, PREEMPT_RT")
    if rig.driver == "ros2":
        return ok("kernel", f"{release}; the control loop is the ROS 2 controller's, where that runs")
    if ipaddress.ip_address(rig.arm).is_loopback:
        return warning("kernel", f"{release} is not PREEMPT_RT: good enough for a twin, not for an arm")
    return failed(
        "kernel", f"{release} is not PREEMPT_RT: packets get lost under load; install a real-time kernel"
    )


def _limit(what: str, number: int, least: int, remedy: str) -> Finding:
    if os.geteuid() == 0:
        return ok(what, "root may take as much as it likes")
    soft, _ = resource.getrlimit(number)
    if soft == resource.RLIM_INFINITY or (least != resource.RLIM_INFINITY and soft >= least):
        return ok(what, "permitted")
    return warning(
        what, f"the limit of this user is {soft}: the control loop cannot have what it needs; {remedy}"
    )


def _governor(folder: Path) -> Finding:
    found = {path.read_text().strip() for path in folder.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    if not found:
        return ok("processor", "its frequency is not for this system to change")
    if found == {"performance"}:
        return ok("processor", "governor performance")
    return warning(
        "processor",
        f"governor {', '.join(sorted(found))} slows it down; cpupower frequency-set -g performance",
    )


def _sleep(path: Path) -> Finding:
    if os.access(path, os.W_OK):
        return ok("sleep", "the server can keep the cores awake")
    return warning(
        "sleep",
        f"{path} cannot be written: cores fall asleep between two packets and are late; a udev rule lets a group: "
        'KERNEL=="cpu_dma_latency", GROUP="realtime", MODE="0660"',
    )


def _cores(rig: Rig) -> Finding:
    usable = os.sched_getaffinity(0)
    if rig.core is not None and rig.core not in usable:
        return failed("cores", f"core: {rig.core} in {rig.source} is not one of {sorted(usable)}; change it")
    if len(usable) < 4:
        return warning(
            "cores", f"{len(usable)}: control loop, server and actor will wait for each other; 4 are enough"
        )
    return ok("cores", f"{len(usable)}")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:.1f} GiB free at {folder.resolve()}"
    if free < FULL_BYTES:
        return failed("disk", f"{text}; free some, or run elsewhere")
    return (
        ok("disk", text) if free >= ROOMY_BYTES else warning("disk", f"{text}; a day with cameras takes more")
    )


def _ros2() -> Finding:
    """Either way to ROS 2 will do."""
    for name in ("rclpy", "cyclonedds"):
        if importlib.util.find_spec(name) is not None:
            return ok("package", f"{name}, for serl ros2 arm --transport {name}")
    return failed(
        "package",
        "neither rclpy nor cyclonedds; source an installation of ROS 2, or pip install 'serl-suite[ros2]'",
    )


def _package(name: str, remedy: str, *, needed: bool) -> Finding:
    try:
        return ok("package", f"{name} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
        return (failed if needed else warning)("package", f"no {name}; {remedy}")
