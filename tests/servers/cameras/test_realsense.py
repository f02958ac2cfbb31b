"""The RealSense driver over the real librealsense: a device in software, and recordings through the pipeline."""

import threading
import time
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from seen import HEIGHT, RATE_HZ, WIDTH, SoftwareCamera, picture, recording
from serl_servers.cameras.capture import Capture
from serl_servers.cameras.driver import CameraFault
from serl_servers.cameras.realsense import RealSense, find_realsense

from serl_suite.rig import Camera
from serl_suite.wire.camera_link import LinkClosed
from serl_suite.wire.camera_messages import STALE_S

pytest.importorskip(
    "pyrealsense2",
    reason="pip install serl-suite[cameras]; apt-get install libusb-1.0-0",
    exc_type=ImportError,
)


def camera(**fields):
    size = {"width": WIDTH, "height": HEIGHT, "rate_hz": RATE_HZ, "size": HEIGHT}
    return Camera(**{"name": "wrist", "driver": "realsense", "serial": "127122270572", **size, **fields})


@pytest.fixture
def device():
    return SoftwareCamera()


def test_what_waited_while_the_process_was_held_up_is_no_new_picture(device):
    driver = RealSense(camera(), device.device)
    try:
        device.feed(picture(1), 1)
        time.sleep(2 * STALE_S)
        assert driver.read(0.1) is None
        device.feed(picture(2), 2)
        assert driver.read(1.0).number == 2
    finally:
        driver.close()


def test_frames_come_as_they_were_taken(device):
    driver = RealSense(camera(), device.device)
    try:
        for number in range(1, 6):
            before_ns = time.monotonic_ns()
            device.feed(picture(number), number)
            frame = driver.read(1.0)
            assert (frame.pixels == picture(number)).all()
            assert frame.number == number
            assert frame.device_s == pytest.approx(number / RATE_HZ)
            assert before_ns < frame.host_ns < time.monotonic_ns()
    finally:
        driver.close()


def test_only_the_newest_frame_is_seen(device):
    driver = RealSense(camera(), device.device)
    try:
        for number in range(1, 20):
            device.feed(picture(number), number)
        time.sleep(0.2)
        assert driver.read(1.0).number == 19
    finally:
        driver.close()


def test_no_frame_is_none_after_the_time_that_was_given(device):
    driver = RealSense(camera(), device.device)
    try:
        began = time.monotonic()
        assert driver.read(0.2) is None
        assert 0.15 < time.monotonic() - began < 1.0
    finally:
        driver.close()


def test_exposure_and_white_balance_are_locked(device):
    driver = RealSense(camera(exposure_ms=8.0, white_balance_k=4204), device.device)
    driver.close()
    assert (device.option("enable_auto_exposure"), device.option("exposure")) == (0.0, 80.0)  # 100 us
    assert (device.option("enable_auto_white_balance"), device.option("white_balance")) == (0.0, 4200.0)


def test_what_the_camera_has_found_is_kept(device):
    import pyrealsense2 as rs

    device.colour.set_option(rs.option.exposure, 123.0)
    driver = RealSense(camera(exposure_ms="lock"), device.device)
    driver.close()
    assert (device.option("enable_auto_exposure"), device.option("exposure")) == (0.0, 123.0)
    assert device.option("enable_auto_white_balance") == 1.0


def test_an_exposure_that_the_camera_has_not(device):
    with pytest.raises(CameraFault, match=r"exposure_ms 5000 can't be; the camera takes 0\.1 to 1000"):
        RealSense(camera(exposure_ms=5000.0), device.device)


@pytest.mark.parametrize("size", [{"width": 1280, "height": 720}, {"rate_hz": 60}])
def test_a_mode_that_the_camera_has_not(device, size):
    with pytest.raises(
        CameraFault, match=rf"has no colour .*; take one of {WIDTH}x{HEIGHT} at {RATE_HZ}"
    ) as fault:
        RealSense(camera(**size), device.device)
    assert fault.value.name == "resolution"


def test_a_wrong_serial_names_those_that_are_there():
    there = ", ".join(found.serial for found in find_realsense()) or "none"
    with pytest.raises(CameraFault, match=rf"no RealSense has serial 4711 \(there is {there}\)") as fault:
        RealSense(camera(serial="4711"))
    assert fault.value.name == "missing"


@pytest.fixture(scope="module")
def tape(tmp_path_factory):
    return recording(tmp_path_factory.mktemp("tape") / "tape.db3", ("lively", 1.0))


def test_a_recording_plays_through_the_pipeline(tape):
    driver = RealSense(camera(serial=tape))
    frames = []
    try:
        while (frame := driver.read(0.5)) is not None:
            frames.append(frame)
    finally:
        driver.close()
    assert len(frames) > 20
    for frame in frames:  # depth came first, and counts along
        assert (frame.pixels == picture(frame.number - 2)).all()
        assert frame.device_s == pytest.approx(frame.number / RATE_HZ, abs=1e-3)
    assert [frame.number for frame in frames] == sorted({frame.number for frame in frames})


def test_a_recording_of_the_old_kind_is_refused(tmp_path):
    old = tmp_path / "tape.db3"
    old.write_bytes(b"#ROSBAG V2.0\n" + bytes(4096))
    with pytest.raises(CameraFault, match="cannot be played"):
        RealSense(camera(serial=str(old)))
    with pytest.raises(CameraFault, match="there is no recording"):
        RealSense(camera(serial=str(tmp_path / "none.db3")))


class Feeder:
    """Feeds a software camera at its rate, with pictures of a kind that changes."""

    def __init__(self, device):
        self.kind, self._device, self._over = "lively", device, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _run(self):
        number = shown = 0
        while not self._over.wait(1 / RATE_HZ):
            number += 1
            if self.kind == "lively":
                shown = number
            if self.kind != "none":
                black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
                self._device.feed(black if self.kind == "black" else picture(shown), number)


@pytest.mark.parametrize(("kind", "fault"), [("none", "stalled"), ("same", "frozen"), ("black", "black")])
def test_a_fault_is_named_and_passes(device, kind, fault):
    """No picture is passed on meanwhile, and the sequence goes on when it comes back."""
    said, over = [], threading.Event()

    def send(report, pixels):
        said.append((time.monotonic(), report))
        if over.is_set():
            raise LinkClosed

    capture = Capture(camera(), lambda: RealSense(camera(), device.device), send)

    def run():
        with suppress(LinkClosed):
            while True:
                capture.open_and_pump()

    def await_report(wanted, since):
        deadline = time.monotonic() + 10
        while not any(at > since and report.fault == wanted for at, report in said):
            assert time.monotonic() < deadline, said[-3:]
            time.sleep(0.01)

    thread = threading.Thread(target=run)
    with Feeder(device) as feeder:
        thread.start()
        await_report("", 0.0)
        feeder.kind, changed = kind, time.monotonic()
        await_report(fault, changed)
        assert time.monotonic() - changed < STALE_S + 1.0
        time.sleep(2.5)  # it is closed and opened anew meanwhile
        feeder.kind, back = "lively", time.monotonic()
        await_report("", back)
        over.set()
        thread.join(10)
    assert not thread.is_alive()
    quiet = [report for at, report in said if changed + 0.1 < at < back]
    assert quiet
    assert all(report.stamp is None for report in quiet)
    sequences = [report.stamp.sequence for _, report in said if report.stamp is not None]
    assert all(a < b for a, b in pairwise(sequences))
