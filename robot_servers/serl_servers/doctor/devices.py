"""What is plugged in: cameras and what a person leads the arm with."""

import os
from collections.abc import Iterator
from pathlib import Path

from serl_servers.doctor.finding import Finding, failed, ok
from serl_suite.rig import Camera, Rig, Teleop

__all__ = ["check_devices"]

SYSTEM = Path("/sys")
SPACEMOUSE_MAKERS = ("0000256F", "0000046D")
"""3Dconnexion, and Logitech before."""


def check_devices(rig: Rig, system: Path = SYSTEM) -> Iterator[Finding]:
    """Yields what of the rig's devices is there.

    Args:
        rig: Lists them.
        system: Where the kernel shows what is plugged in.
    """
    if not rig.cameras:
        yield ok("cameras", "none listed")
    for camera in rig.cameras:
        yield _camera(camera, system)
    yield _teleop(rig.teleop, system)


def _camera(camera: Camera, system: Path) -> Finding:
    what = f"camera {camera.name}"
    if camera.driver == "v4l2":
        return _file(what, Path(camera.serial))
    found = sorted(path.read_text().strip() for path in system.glob("bus/usb/devices/*/serial"))
    if camera.serial in found:
        return ok(what, f"RealSense {camera.serial}")
    there = ", ".join(found) or "none"
    return failed(
        what, f"no USB device has serial {camera.serial} (there is {there}); plug it in, or correct the rig"
    )


def _teleop(teleop: Teleop | None, system: Path) -> Finding:
    if teleop is None:
        return ok("teleop", "none listed")
    if teleop.device is not None:
        return _file("teleop", Path(teleop.device))
    if teleop.driver == "keyboard":
        return ok("teleop", "keyboard")
    for path in sorted(system.glob("class/hidraw/*/device/uevent")):
        if any(f":{maker}:" in path.read_text().upper() for maker in SPACEMOUSE_MAKERS):
            return _file("teleop", Path("/dev") / path.parents[1].name)
    return failed("teleop", "no SpaceMouse is plugged in; plug it in, or take it out of the rig")


def _file(what: str, path: Path) -> Finding:
    if not path.exists():
        return failed(what, f"there is no {path}; plug it in, or correct the rig")
    if not os.access(path, os.R_OK):
        return failed(what, f"{path} may not be read by this user; install the udev rules, or join its group")
    return ok(what, str(path))
