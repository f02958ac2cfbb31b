"""What cameras saw, kept: a video without loss for each, and a line on each picture."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import av
import msgspec
from av.video.stream import VideoStream

from serl_suite.errors import SerlError
from serl_suite.wire.camera_client import CameraClient
from serl_suite.wire.camera_messages import Pixels, Stamp

__all__ = ["FolderTaken", "Line", "record"]

NOMINAL_HZ = 30
"""Of the videos; when a picture really was taken, its line says."""
WAIT_S = 0.1


class FolderTaken(SerlError):
    """There is a recording already."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of a video, in its order."""

    stamp: Stamp
    skew_s: float
    """Between the pictures of all cameras that were shown together."""


class _Video:
    """FFV1 in RGB: what is read from it is what was written, to the bit."""

    def __init__(self, folder: Path, name: str) -> None:
        self._container = av.open(str(folder / f"{name}.mkv"), "w")
        self._stream: VideoStream | None = None
        self._lines = (folder / f"{name}.jsonl").open("wb")
        self.count = 0

    def add(self, pixels: Pixels, line: Line) -> None:
        if self._stream is None:
            stream = self._container.add_stream("ffv1", rate=NOMINAL_HZ)
            stream.width, stream.height, stream.pix_fmt = pixels.shape[1], pixels.shape[0], "bgr0"
            self._stream = stream
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="bgr0")
        self._container.mux(self._stream.encode(frame))
        self._lines.write(msgspec.json.encode(line) + b"\n")
        self.count += 1

    def close(self) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        self._lines.close()


@contextmanager
def _video(folder: Path, name: str) -> Iterator[_Video]:
    video = _Video(folder, name)
    try:
        yield video
    finally:
        video.close()


def record(
    client: CameraClient, folder: Path, seconds: float, should_stop: Callable[[], bool]
) -> dict[str, int]:
    """Records every picture of every camera, and returns how many there were of each; a fault adds none.

    Args:
        client: Of the camera server.
        folder: New; NAME.mkv and NAME.jsonl are written there.
        seconds: How long.
        should_stop: Asked after each picture.

    Raises:
        FolderTaken: The folder is there already.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FolderTaken(f"there is {folder} already; take another folder") from None
    until, last = time.monotonic() + seconds, dict.fromkeys(client.names, 0)
    with ExitStack() as stack:
        videos = {name: stack.enter_context(_video(folder, name)) for name in client.names}
        while time.monotonic() < until and not should_stop():
            leader = min(client.names, key=lambda name: client.sight(name).age_s)
            client.await_next(leader, WAIT_S)
            for name, video in videos.items():
                sight = client.sight(name)
                if sight.stamp.sequence != last[name] and not client.fault(name)[0]:
                    last[name] = sight.stamp.sequence
                    video.add(client.picture(name), Line(stamp=sight.stamp, skew_s=client.skew_s))
        return {name: video.count for name, video in videos.items()}
