"""Intel RealSense, through librealsense's own pipeline: a camera by its serial number, or a recording of one."""

import importlib
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from serl_servers.cameras.driver import CameraFault, Found, Frame
from serl_suite.rig import Camera
from serl_suite.wire.camera_messages import STALE_S

__all__ = ["RECORDING", "RealSense", "find_realsense"]

RECORDING = ".db3"
SETTLE_S = 1.5
"""Automatic exposure and white balance have found their values by then."""


def load_library() -> Any:  # noqa: ANN401 - a module without types
    """Returns pyrealsense2.

    Raises:
        CameraFault: It is not installed, or cannot be loaded; says what to install.
    """
    try:
        return importlib.import_module("pyrealsense2")
    except ImportError as error:
        raise CameraFault(
            "no_driver",
            f"pyrealsense2 cannot be loaded ({error}); pip install 'serl-suite[cameras]', and apt-get install "
            "libusb-1.0-0",
        ) from error


def find_realsense() -> Iterator[Found]:
    """Yields the RealSense cameras that are plugged in.

    Raises:
        CameraFault: There is no pyrealsense2, or it may not look for them.
    """
    rs = load_library()
    try:
        devices = list(rs.context().query_devices())
    except RuntimeError as error:
        text = f"RealSense cameras cannot be listed ({error}); install the udev rules (hardware/udev)"
        raise CameraFault("missing", text) from error
    for device in devices:
        info = {
            name: device.get_info(kind)
            for name, kind in (
                ("serial", rs.camera_info.serial_number),
                ("name", rs.camera_info.name),
                ("usb", rs.camera_info.usb_type_descriptor),
                ("firmware", rs.camera_info.firmware_version),
            )
            if device.supports(kind)
        }
        text = f"{info.get('name', 'RealSense')}, USB {info.get('usb', '?')}, firmware {info.get('firmware', '?')}"
        yield Found("realsense", info.get("serial", "?"), text, info.get("usb", ""))


class RealSense:
    """Implements `CameraDriver` for the colour stream.

    Args:
        camera: As the rig has it.
        device: To be used instead of looking for the serial; of pyrealsense2.

    Raises:
        CameraFault: It is not there, has no such mode or no such setting, or another program has it.
    """

    def __init__(self, camera: Camera, device: object = None) -> None:
        self._rs = rs = load_library()
        self._camera = camera
        self._context = rs.context()
        self._device: Any = device or self._find()
        self._pipeline = rs.pipeline(self._context)
        self._pipeline.set_device(self._device)
        config = rs.config()
        config.enable_stream(rs.stream.color, camera.width, camera.height, rs.format.rgb8, camera.rate_hz)
        self._read_at = time.monotonic()
        try:
            self._pipeline.start(config)
        except RuntimeError as error:
            raise self._not_started(error) from error
        try:
            self._set_all()
        except CameraFault:
            self.close()
            raise
        except RuntimeError as error:
            self.close()
            raise CameraFault(
                "settings", f"RealSense {camera.serial} takes no settings ({error}); plug it in anew"
            ) from error

    def read(self, timeout_s: float) -> Frame | None:
        """Waits for the next frame and returns the newest; None: there was none for so long.

        Raises:
            CameraFault: The camera was unplugged.
        """
        deadline = time.monotonic() + timeout_s
        if time.monotonic() - self._read_at > STALE_S:
            self._discard_waiting()
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                came, frames = self._pipeline.try_wait_for_frames(max(1, int(left_s * 1e3)))
            except RuntimeError as error:
                raise self._gone(str(error)) from error
            arrived_ns = time.monotonic_ns()
            self._read_at = 1e-9 * arrived_ns
            colour = frames.get_color_frame() if came else None
            if colour:  # a set may come without
                pixels = np.array(colour.get_data(), np.uint8)  # the library's own buffers are few
                return Frame(pixels, colour.get_frame_number(), colour.get_timestamp() * 1e-3, arrived_ns)
        if not self._is_recording and not self._device.is_connected():
            raise self._gone("it is not connected any more")
        return None

    def close(self) -> None:
        """Lets the camera go; call once."""
        with suppress(RuntimeError):  # it has gone by itself
            self._pipeline.stop()

    def _discard_waiting(self) -> None:
        """This process was held up, and what came meanwhile is as old as that, or older: no new picture."""
        try:
            while self._pipeline.poll_for_frames():
                pass
        except RuntimeError as error:
            raise self._gone(str(error)) from error

    @property
    def _is_recording(self) -> bool:
        return bool(self._device.is_playback())

    def _gone(self, cause: str) -> CameraFault:
        return CameraFault(
            "unplugged",
            f"RealSense {self._camera.serial}: {cause}; plug it in again, it is opened by itself then",
        )

    def _find(self) -> Any:  # noqa: ANN401 - pyrealsense2 has no types
        serial = self._camera.serial
        if serial.endswith(RECORDING):
            if not Path(serial).is_file():
                raise CameraFault("missing", f"there is no recording {serial}; correct the rig")
            try:
                return self._context.load_device(serial)
            except RuntimeError as error:
                raise CameraFault("missing", f"{serial} cannot be played: {error}") from error
        kind, there = self._rs.camera_info.serial_number, []
        try:
            for device in self._context.query_devices():
                there.append(device.get_info(kind))
                if there[-1] == serial:
                    return device
        except RuntimeError as error:
            raise CameraFault(
                "missing",
                f"RealSense cameras cannot be listed ({error}); install the udev rules (hardware/udev), and plug "
                f"{serial} in anew",
            ) from error
        raise CameraFault(
            "missing",
            f"no RealSense has serial {serial} (there is {', '.join(there) or 'none'}); plug it in, or correct the rig",
        )

    def _not_started(self, error: RuntimeError) -> CameraFault:
        camera, modes = self._camera, sorted(set(self._modes()))
        if (camera.width, camera.height, camera.rate_hz) in modes:
            return CameraFault(
                "busy",
                f"RealSense {camera.serial} does not start ({error}); end the program that has it, or plug it in anew",
            )
        text = ", ".join(f"{width}x{height} at {rate}" for width, height, rate in modes)
        return CameraFault(
            "resolution",
            f"RealSense {camera.serial} has no colour {camera.width}x{camera.height} at {camera.rate_hz} Hz; take one "
            f"of {text or 'none: it has no colour stream'}",
        )

    def _modes(self) -> Iterator[tuple[int, int, int]]:
        for sensor in self._device.query_sensors():
            for profile in sensor.get_stream_profiles():
                if profile.stream_type() == self._rs.stream.color and profile.is_video_stream_profile():
                    video = profile.as_video_stream_profile()
                    yield video.width(), video.height(), video.fps()

    def _set_all(self) -> None:
        """Sets what the rig says, or leaves it to the camera; a recording is as it is."""
        if self._is_recording:
            return
        rs, camera = self._rs, self._camera
        sensor = next(s for s in self._device.query_sensors() if self._sees_colour(s))
        # A D405's colours come from its depth module, which counts microseconds; all others count 100 of them.
        per_ms = 1e3 if sensor.is_depth_sensor() else 10.0
        settings = (
            _Setting(
                "exposure_ms", camera.exposure_ms, rs.option.enable_auto_exposure, rs.option.exposure, per_ms
            ),
            _Setting(
                "white_balance_k", camera.white_balance_k, rs.option.enable_auto_white_balance,
                rs.option.white_balance, 1.0,
            ),
        )  # fmt: skip
        for setting in settings:
            if setting.wish == "auto":
                if sensor.supports(setting.automatic):
                    sensor.set_option(setting.automatic, 1.0)
            elif not (sensor.supports(setting.automatic) and sensor.supports(setting.value)):
                raise CameraFault(
                    "settings", f"RealSense {camera.serial} has no {setting.name}; leave it at auto"
                )
        if "lock" in (camera.exposure_ms, camera.white_balance_k):
            time.sleep(SETTLE_S)
        for setting in settings:
            if setting.wish != "auto":
                bounds = sensor.get_option_range(setting.value)
                value = setting.within(bounds.min, bounds.max, bounds.step, sensor.get_option(setting.value))
                sensor.set_option(setting.automatic, 0.0)
                sensor.set_option(setting.value, value)

    def _sees_colour(self, sensor: Any) -> bool:  # noqa: ANN401
        return any(p.stream_type() == self._rs.stream.color for p in sensor.get_stream_profiles())


class _Setting(NamedTuple):
    """A setting that the camera finds by itself, or is given."""

    name: str
    """As in the rig."""
    wish: str | float
    automatic: object
    value: object
    scale: float
    """From the rig's unit to the camera's."""

    def within(self, low: float, high: float, step: float, found: float) -> float:
        """Returns what to set: the wish, or what the camera has found, on the camera's own steps.

        Raises:
            CameraFault: The camera can't have it.
        """
        wanted = found if isinstance(self.wish, str) else self.wish * self.scale
        if not low <= wanted <= high:
            raise CameraFault(
                "settings",
                f"{self.name} {wanted / self.scale:g} can't be; the camera takes {low / self.scale:g} to "
                f"{high / self.scale:g}; correct the rig",
            )
        return low + round((wanted - low) / (step or 1.0)) * (step or 1.0)
