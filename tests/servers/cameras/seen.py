"""What the cameras of the tests see: films and RealSense recordings with known pictures, and a camera server as a user
starts it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import av
import msgspec
import numpy as np

from serl_suite.rig import read_rig
from serl_suite.wire.camera_client import CameraClient

WIDTH, HEIGHT, RATE_HZ = 64, 48, 30
START_S = 60.0


def picture(number, width=WIDTH, height=HEIGHT):
    """A picture that says its number: in the level of its left half; the right half is noise."""
    pixels = np.random.default_rng(number).integers(60, 200, (height, width, 3), np.uint8)
    pixels[:, : width // 2] = 40 + number % 200
    return pixels


def shots(*parts, width=WIDTH, height=HEIGHT):
    """Yields the pictures of parts such as ("lively", 1.5): a kind and seconds."""
    number = 0
    for kind, seconds in parts:
        for _ in range(round(seconds * RATE_HZ)):
            number += kind == "lively"
            yield (
                np.zeros((height, width, 3), np.uint8) if kind == "black" else picture(number, width, height)
            )


def film(path, *parts, width=WIDTH, height=HEIGHT):
    """Writes a video without loss, and returns its path."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE_HZ)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for pixels in shots(*parts, width=width, height=height):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="bgr0")))
        container.mux(stream.encode(None))
    return str(path)


class SoftwareCamera:
    """A device of librealsense's that is fed by the test, with colour and depth as a D435 has."""

    def __init__(self, serial="127122270572", width=WIDTH, height=HEIGHT):
        import pyrealsense2 as rs

        self._rs, self.width, self.height = rs, width, height
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.serial_number, serial)
        self.device.register_info(rs.camera_info.name, "Software D435")
        self.depth = self.device.add_sensor("Stereo Module")
        self.colour = self.device.add_sensor("RGB Camera")
        self._profiles = {
            "depth": self._stream(self.depth, rs.stream.depth, 1, rs.format.z16, 2),
            "colour": self._stream(self.colour, rs.stream.color, 2, rs.format.rgb8, 3),
        }
        for name, least, most, step in (
            ("enable_auto_exposure", 0, 1, 1), ("exposure", 1, 10000, 1),
            ("enable_auto_white_balance", 0, 1, 1), ("white_balance", 2800, 6500, 10),
        ):  # fmt: skip
            bounds = rs.option_range()
            bounds.min, bounds.max, bounds.step, bounds.default = least, most, step, most
            self.colour.add_option(getattr(rs.option, name), bounds, True)

    def option(self, name):
        return self.colour.get_option(getattr(self._rs.option, name))

    def feed(self, pixels, number):
        """A colour frame."""
        self._feed(self.colour, "colour", pixels, number, 3)

    def feed_depth(self, number):
        self._feed(self.depth, "depth", np.full((self.height, self.width), 1000, np.uint16), number, 2)

    def _feed(self, sensor, name, pixels, number, bytes_per_pixel):
        frame = self._rs.software_video_frame()
        frame.stride, frame.bpp = self.width * bytes_per_pixel, bytes_per_pixel
        frame.timestamp, frame.domain = number * 1e3 / RATE_HZ, self._rs.timestamp_domain.hardware_clock
        frame.frame_number, frame.profile, frame.pixels = (
            number,
            self._profiles[name],
            np.ascontiguousarray(pixels),
        )
        sensor.on_video_frame(frame)

    def _stream(self, sensor, kind, uid, pixel_format, bytes_per_pixel):
        rs = self._rs
        lens = rs.intrinsics()
        lens.width, lens.height, lens.fx, lens.fy = self.width, self.height, 60.0, 60.0
        lens.ppx, lens.ppy, lens.model, lens.coeffs = (
            self.width / 2,
            self.height / 2,
            rs.distortion.none,
            [0.0] * 5,
        )
        stream = rs.video_stream()
        stream.type, stream.index, stream.uid, stream.fps = kind, 0, uid, RATE_HZ
        stream.width, stream.height, stream.bpp, stream.fmt = (
            self.width,
            self.height,
            bytes_per_pixel,
            pixel_format,
        )
        stream.intrinsics = lens
        return sensor.add_video_stream(stream, True).as_video_stream_profile()


def recording(path, *parts, serial="127122270572"):
    """Records what a software camera sees, in real time, as librealsense records a camera of metal; depth comes first,
    as it does there. Returns the path."""
    import pyrealsense2 as rs

    camera = SoftwareCamera(serial)
    recorder = rs.recorder(str(path), camera.device)
    sensors, queue = recorder.query_sensors(), rs.frame_queue(50)
    for sensor in sensors:
        sensor.open(sensor.get_stream_profiles()[0])
        sensor.start(queue)
    due = time.monotonic()
    for number in (1, 2):
        camera.feed_depth(number)
    for number, pixels in enumerate(shots(*parts), 3):
        camera.feed_depth(number)
        camera.feed(pixels, number)
        due += 1 / RATE_HZ
        time.sleep(max(0.0, due - time.monotonic()))
    for sensor in sensors:
        sensor.stop()
        sensor.close()
    return str(path)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_rig(folder, *cameras, **fields):
    """A rig with these cameras; each has the films' size unless it says otherwise."""
    size = {"width": WIDTH, "height": HEIGHT, "rate_hz": RATE_HZ, "size": 48, "driver": "v4l2"}
    values = {
        "arm": "127.0.0.1", "camera_server": f"tcp://127.0.0.1:{free_port()}",
        "cameras": [size | camera for camera in cameras], **fields,
    }  # fmt: skip
    path = Path(folder) / f"rig{time.monotonic_ns()}.yaml"
    path.write_bytes(msgspec.yaml.encode(values))
    return read_rig(path)


@contextlib.contextmanager
def serving(rig):
    """`serl camera serve`, until the end of the block; yields its log."""
    log = Path(rig.source).with_suffix(".log")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "serl_servers.cameras", "serve", "--rig", rig.source], stdout=output,
            stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_S
        while "Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(15) == 0, log.read_text()
        finally:
            process.kill()


@contextlib.contextmanager
def watching(rig):
    """A client of the rig's camera server."""
    client = CameraClient(rig.camera_server)
    try:
        yield client
    finally:
        client.close()


def await_fault(client, camera, name, within_s=20.0):
    """Looks until the camera has the fault ("": none); returns the remedy."""
    deadline = time.monotonic() + within_s
    while True:
        client.look()
        fault, detail = client.fault(camera)
        if fault == name:
            return detail
        assert time.monotonic() < deadline, f"{camera}: {fault!r} ({detail}), not {name!r}"
        time.sleep(0.01)


def processes(*serials):
    """Processes of cameras with these serials: numbers by the camera's name."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            if "serl_servers.cameras.capture" in words:
                camera = msgspec.json.decode(words[-2])
                if camera["serial"] in serials:
                    found[camera["name"]] = int(path.parent.name)
    return found
