"""What is plugged in: cameras and what a person leads the arm with."""

import os
from collections.abc import Iterator
from pathlib import Path

from serl_servers.cameras.calibration import BadCalibration, read_calibration
from serl_servers.cameras.driver import CameraFault
from serl_servers.cameras.realsense import RECORDING, find_realsense
from serl_servers.doctor.finding import Finding, failed, ok, warning
from serl_suite.rig import Camera, Rig, Teleop
from serl_suite.wire.camera_client import CameraClient, CamerasUnreachable
from serl_suite.wire.keys import KeysError, client_keys

__all__ = ["check_devices"]

SYSTEM = Path("/sys")
HELLO_S = 1.0
SPACEMOUSE_MAKERS = ("0000256F", "0000046D")
"""3Dconnexion, and Logitech before."""


def check_devices(rig: Rig, system: Path = SYSTEM) -> Iterator[Finding]:
    """Yields what of the rig's devices is there: of cameras what their server says, or themselves where none has them.

    Args:
        rig: Lists them.
        system: Where the kernel shows what is plugged in.
    """
    if not rig.cameras:
        yield ok("cameras", "none listed")
    elif (client := _camera_client(rig)) is not None:
        yield from (_served(rig, camera, client) for camera in rig.cameras)
        client.close()
    else:
        yield from (_camera(camera, system) for camera in rig.cameras)
    yield _teleop(rig.teleop, system)


def _camera_client(rig: Rig) -> CameraClient | None:
    try:
        keys = client_keys(rig.keys, rig.server_key) if rig.keys is not None else None
        return CameraClient(rig.camera_server, keys, hello_s=HELLO_S)
    except (KeysError, CamerasUnreachable):
        return None


def _served(rig: Rig, camera: Camera, client: CameraClient) -> Finding:
    what = f"camera {camera.name}"
    if camera.name not in client.names:
        return failed(
            what,
            f"the camera server at {rig.camera_server} has {', '.join(client.names)}; end it, and start it again: serl "
            f"camera serve --rig {rig.source}",
        )
    client.look()
    fault, detail = client.fault(camera.name)
    if fault:
        return failed(what, f"{fault}: {detail}")
    sight = client.sight(camera.name)
    age_ms = 1e3 * client.age_s(camera.name)
    return ok(what, f"seen by the camera server: {sight.size}x{sight.size}, {age_ms:.0f} ms old")


def _camera(camera: Camera, system: Path) -> Finding:
    what = f"camera {camera.name}"
    if camera.calibration is not None:
        try:
            read_calibration(Path(camera.calibration), camera)
        except BadCalibration as error:
            return failed(what, str(error))
    if camera.driver == "twin":
        return ok(what, f"camera {camera.serial} of the twin's scene")
    if camera.driver == "v4l2" or camera.serial.endswith(RECORDING):
        return _file(what, Path(camera.serial))
    return _realsense(what, camera.serial, system)


def _realsense(what: str, serial: str, system: Path) -> Finding:
    """The library knows the serial that is printed on the camera; the kernel, on some models, that of a chip in it."""
    found = sorted(path.read_text().strip() for path in system.glob("bus/usb/devices/*/serial"))
    try:
        for camera in find_realsense():
            found.append(camera.serial)
            if camera.serial == serial and camera.usb.startswith("2"):
                return warning(what, f"{camera.text}: too slow for many modes; use a USB 3 port and cable")
    except CameraFault as fault:
        return failed(what, str(fault))
    if serial in found:
        return ok(what, f"RealSense {serial}")
    there = ", ".join(found) or "none"
    return failed(
        what, f"no USB device has serial {serial} (there is {there}); plug it in, or correct the rig"
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
