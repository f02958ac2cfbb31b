"""`serl camera`: the cameras of a rig."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import tyro

from serl_servers.commands import Commands, run_command
from serl_suite.cli.stopping import stop_on_signals
from serl_suite.errors import SerlError
from serl_suite.rig import BadRig, Camera, Rig, read_rig
from serl_suite.wire.camera_client import CameraClient, CamerasUnreachable
from serl_suite.wire.keys import client_keys

__all__ = ["COMMANDS", "run"]

SERVE = """Serve the cameras of a rig: a process for each, and the service that shows what they see.

  serl camera serve --rig hardware/rigs/fr3.yaml

A camera that is missing, unplugged, frozen or black is a fault that clients see; it is opened again by itself."""
VIEW = """Show what the cameras of a rig see, as their server has it.

  serl camera view --rig hardware/rigs/fr3.yaml                  live, in a browser
  serl camera view --rig hardware/rigs/fr3.yaml --out now.png    once, in a file"""
RECORD = """Record what the cameras of a rig see, as their server has it: a video without loss for each, and when each
picture was taken.

  serl camera record --rig hardware/rigs/fr3.yaml --seconds 20 --out recordings/today"""
CALIBRATE = """Find out what a camera's lens does, from pictures of a board, and write it to a file for the rig.

  serl camera calibrate --rig hardware/rigs/fr3.yaml --camera wrist --out hardware/calibration/wrist.yaml
  serl camera calibrate --rig hardware/rigs/fr3.yaml --camera wrist --out FILE --images pictures/

Without --images it looks through the camera itself: end the camera server, and move the board about, into the corners
and tilted, until it has seen enough. The board is ChArUco, or with --board chess a chessboard."""
LIST = """List the cameras that are plugged in, and those of a rig.

  serl camera list
  serl camera list --rig hardware/rigs/fr3.yaml"""

Options = TypeVar("Options")
PICTURES = (".png", ".jpg", ".jpeg")


class BadFile(SerlError):
    """No file can be written there."""


class _Rigged(msgspec.Struct, frozen=True, kw_only=True):
    rig: Path
    """The rig's file."""


class _Serve(_Rigged, frozen=True, kw_only=True):
    pass


class _List(msgspec.Struct, frozen=True, kw_only=True):
    rig: Path | None = None
    """The rig's file: which of its cameras are there."""


class _View(_Rigged, frozen=True, kw_only=True):
    out: Path | None = None
    """Picture to write, instead of showing them live."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8765
    """For the browser, on this machine."""


class _Record(_Rigged, frozen=True, kw_only=True):
    out: Path
    """New folder."""
    seconds: float = 10.0


class _Calibrate(_Rigged, frozen=True, kw_only=True):
    camera: str
    """Its name in the rig."""
    out: Path
    """File to write."""
    images: Path | None = None
    """Folder of pictures of the board, instead of the camera."""
    board: Literal["charuco", "chess"] = "charuco"
    """Kind of board."""
    squares: tuple[int, int] = (8, 6)
    """Of the board, across and down."""
    square_mm: float = 30.0
    """Side of a square."""
    marker_mm: float = 22.0
    """Side of a ChArUco marker."""
    views: Annotated[int, msgspec.Meta(ge=5)] = 20
    """Pictures of the board that are looked for."""


def _parse(kind: type[Options], word: str, text: str, arguments: Sequence[str]) -> Options:
    return tyro.cli(kind, args=list(arguments), prog=f"serl camera {word}", description=text)


def _serve(arguments: Sequence[str]) -> int:
    rig = read_rig(_parse(_Serve, "serve", SERVE, arguments).rig)
    stop = stop_on_signals()
    from serl_servers.cameras.service import CameraService

    service = CameraService(rig)
    try:
        names = ", ".join(camera.name for camera in rig.cameras)
        print(f"serving {names} on {rig.camera_server}; Ctrl-C ends it", flush=True)  # noqa: T201
        service.run(stop.is_set)
    finally:
        service.close()
    return 0


def _view(arguments: Sequence[str]) -> int:
    options = _parse(_View, "view", VIEW, arguments)
    if options.out is not None and (options.out.suffix not in PICTURES or not options.out.parent.is_dir()):
        raise BadFile(
            f"{options.out}: give a file that ends in {' or '.join(PICTURES)}, in a folder that is there"
        )
    rig = read_rig(options.rig)
    stop = stop_on_signals()
    from PIL import Image

    from serl_servers.cameras.view import Viewer, sheet

    client = _connect(rig)
    try:
        if options.out is not None:
            for name in client.names:
                client.await_next(name, 1.0)
            client.look()  # one that shows nothing has kept the others waiting
            faults = [(name, *client.fault(name)) for name in client.names if client.fault(name)[0]]
            Image.fromarray(sheet(client)).save(options.out)
            print(f"written: {options.out}")  # noqa: T201
            for name, fault, detail in faults:
                print(f"camera {name}: {fault}: {detail}", file=sys.stderr)  # noqa: T201
            return 1 if faults else 0
        viewer = Viewer(client, options.port)
        print(f"look at {viewer.address}; Ctrl-C ends it", flush=True)  # noqa: T201
        stop.wait()
        viewer.close()
    finally:
        client.close()
    return 0


def _record(arguments: Sequence[str]) -> int:
    options = _parse(_Record, "record", RECORD, arguments)
    rig = read_rig(options.rig)
    stop = stop_on_signals()
    from serl_servers.cameras.recording import record

    client = _connect(rig)
    try:
        counts = record(client, options.out, options.seconds, stop.is_set)
    finally:
        client.close()
    for name, count in counts.items():
        print(f"{name}: {count} pictures in {options.out / name}.mkv")  # noqa: T201
    return 0 if all(counts.values()) else 1


def _calibrate(arguments: Sequence[str]) -> int:
    options = _parse(_Calibrate, "calibrate", CALIBRATE, arguments)
    rig = read_rig(options.rig)
    camera = _named(rig, options.camera)
    stop = stop_on_signals()
    from serl_servers.cameras.boards import Board, calibrate, pictures_in
    from serl_servers.cameras.calibration import write_calibration
    from serl_servers.cameras.seeing import different_views, frames_of

    board = Board(options.board, options.squares, options.square_mm * 1e-3, options.marker_mm * 1e-3)
    if options.images is not None:
        pictures, apart_px = pictures_in(options.images), 0.0
    else:
        pictures, apart_px = frames_of(camera, stop.is_set, rig.scene or ""), 0.05 * camera.width
    views = different_views(board, pictures, (camera.width, camera.height), apart_px, options.views)
    calibration = calibrate(camera.serial, (camera.width, camera.height), views)
    write_calibration(options.out, calibration)
    fx, fy, cx, cy = calibration.intrinsics
    print(  # noqa: T201
        f"{options.out}: focal lengths {fx:.1f}, {fy:.1f}, centre ({cx:.1f}, {cy:.1f}), corners "
        f"{calibration.rms_px:.2f} pixels off in {calibration.views} pictures; in the rig: calibration: {options.out}"
    )
    return 0


def _list(arguments: Sequence[str]) -> int:
    options = _parse(_List, "list", LIST, arguments)
    rig = None if options.rig is None else read_rig(options.rig)
    from serl_servers.cameras.driver import CameraFault
    from serl_servers.cameras.opencv import find_v4l2
    from serl_servers.cameras.realsense import find_realsense

    found = list(find_v4l2())
    try:
        found = [*find_realsense(), *found]
    except CameraFault as fault:
        print(f"RealSense: {fault}", file=sys.stderr)  # noqa: T201
    for camera in found:
        print(f"{camera.driver:10} {camera.serial}  {camera.text}")  # noqa: T201
    if not found:
        print("no camera is plugged in, or none that this user may open")  # noqa: T201
    if rig is None:
        return 0
    for drawn in rig.cameras:
        if drawn.driver == "twin":
            print(f"{drawn.driver:10} {drawn.serial}  drawn from the scene of the twin at {rig.arm}")  # noqa: T201
    there = {(camera.driver, camera.serial) for camera in found}
    missing = [
        wanted
        for wanted in rig.cameras
        if wanted.driver != "twin"
        and (wanted.driver, wanted.serial) not in there
        and not Path(wanted.serial).exists()
    ]
    for wanted in missing:
        print(f"{rig.source}: camera {wanted.name} is missing: {wanted.driver} {wanted.serial}")  # noqa: T201
    return 1 if missing else 0


def _named(rig: Rig, name: str) -> Camera:
    """Raises: BadRig, naming those that there are."""
    for camera in rig.cameras:
        if camera.name == name:
            return camera
    names = ", ".join(camera.name for camera in rig.cameras) or "none"
    raise BadRig(f"{rig.source} lists no camera {name!r} but {names}")


def _connect(rig: Rig) -> CameraClient:
    """Raises: CamerasUnreachable, naming the command that starts the server."""
    keys = client_keys(rig.keys, rig.server_key) if rig.keys is not None else None
    try:
        return CameraClient(rig.camera_server, keys)
    except CamerasUnreachable as error:
        raise CamerasUnreachable(
            f"no camera server answers at {rig.camera_server}; start it: serl camera serve --rig {rig.source}"
        ) from error


COMMANDS: Commands = {
    "list": (_list, "list the cameras that are plugged in, and which of a rig's are missing"),
    "serve": (_serve, "serve the cameras of a rig: actors, views and recordings ask for what they see"),
    "view": (_view, "show what the cameras see, live in a browser or in a file"),
    "record": (_record, "record what the cameras see, as videos without loss"),
    "calibrate": (_calibrate, "find a camera's intrinsics from pictures of a board"),
}
"""What follows `serl camera`, and one line of help each."""


def run(arguments: Sequence[str]) -> int:
    """Runs one of the commands; 0 success, 1 failure, 2 wrong usage.

    Raises:
        SerlError: Says what is wrong and what to do.
    """
    return run_command("serl camera", COMMANDS, arguments)
