"""`serl doctor` beside real programs, and beside none."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from serl_servers.doctor import machine
from serl_servers.doctor.arm import check_arm
from serl_servers.doctor.devices import check_devices
from serl_servers.doctor.machine import check_machine

from serl_suite.rig import Camera, Rig, Teleop
from serl_suite.wire.robot_client import RobotClient
from serl_suite.wire.robot_messages import Stop

sys.path.insert(0, str(Path(__file__).parents[1] / "envs"))
from rigged import make_rig, server, twin

TASK = "FrankaReach-v0"


def doctor(rig):
    """Exit code, and what was found: (level, what) -> text."""
    run = "import sys; from serl_servers.doctor.command_line import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", run, "--rig", rig.source]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert not result.stderr, result.stderr
    found = {}
    for line in result.stdout.splitlines():
        level, what, text = line[:8].strip(), line[9:23].strip(), line[24:]
        assert level in ("ok", "warning", "failed"), line
        found.setdefault((level, what), text)
    return result.returncode, found


def test_a_rig_as_it_is_started(tmp_path):
    pytest.importorskip("pylibfranka")
    rig = make_rig(tmp_path, "realtime")
    code, found = doctor(rig)
    assert code == 1
    assert f"serl twin franka --port-ip {rig.arm}" in found["failed", "arm"]
    assert f"serl twin franka --port-ip {rig.arm}" in found["failed", "scene"]
    assert f"serl robot franka --rig {rig.source}" in found["warning", "server"]
    with twin(rig, TASK):
        code, found = doctor(rig)
        assert code == 0
        assert found["ok", "firmware"] == "FCI 10"
        packets = found.get(("ok", "packets")) or found["warning", "packets"]
        assert int(packets.split()[0]) > 300
        with server(rig):
            code, found = doctor(rig)
            assert (code, found["ok", "arm"]) == (0, f"{rig.arm} running")
            client = RobotClient(rig.server, name="test")
            client.ask(Stop(number=client.next_number(), reason="a test"))
            client.close()
            code, found = doctor(rig)
            assert code == 1
            assert "stopped by stopped" in found["failed", "arm"]


@contextlib.contextmanager
def arm_that_says(reply):
    """Something at an arm's port that answers any greeting with these bytes, and leaves."""
    address = f"127.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250}.1"
    with socket.create_server((address, 1337)) as listener:

        def serve():
            stream, _ = listener.accept()
            with stream:
                stream.recv(64)
                stream.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield address
        thread.join(10)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (bytes([0, 0, 0, 0, 1, 0, 0, 0, 15, 0, 0, 0, 1, 7, 0]), "it speaks FCI 7"),
        (b"HTTP", "it does not greet"),
        (b"", "it does not greet"),
    ],
)
def test_another_firmware_or_none_is_named(reply, said):
    with arm_that_says(reply) as address:
        first, second = check_arm(address)
    assert first.level == "ok"
    assert (second.level, second.what) == ("failed", "firmware")
    assert said in second.text


def test_what_is_plugged_in(tmp_path):
    usb, mouse = tmp_path / "bus/usb/devices/1-2", tmp_path / "class/hidraw/hidraw77/device"
    usb.mkdir(parents=True)
    mouse.mkdir(parents=True)
    (usb / "serial").write_text("127122270572\n")
    (mouse / "uevent").write_text("HID_ID=0003:0000256F:0000C635\n")
    cameras = (
        Camera(name="wrist", driver="realsense", serial="127122270572"),
        Camera(name="front", driver="realsense", serial="4711"),
        Camera(name="side", driver="v4l2", serial=str(usb / "serial")),
        Camera(name="top", driver="v4l2", serial="/dev/video99"),
    )
    rig = Rig(arm="127.0.0.1", cameras=cameras, teleop=Teleop(driver="spacemouse"))
    wrist, front, side, top, teleop = check_devices(rig, tmp_path)
    assert [finding.level for finding in (wrist, front, side, top)] == ["ok", "failed", "ok", "failed"]
    assert "no USB device has serial 4711 (there is 127122270572)" in front.text
    assert teleop == ("failed", "teleop", "there is no /dev/hidraw77; plug it in, or correct the rig")
    (without,) = [f for f in check_devices(rig, tmp_path / "none") if f.what == "teleop"]
    assert "no SpaceMouse" in without.text


def test_cores_that_cannot_be_kept_awake(tmp_path, monkeypatch):
    for path, level in ((tmp_path / "none", "warning"), (tmp_path / "there", "ok")):
        monkeypatch.setattr(machine, "WAKE_LATENCY", path)
        (tmp_path / "there").touch()
        found = {finding.what: finding for finding in check_machine(Rig(arm="127.0.0.1"), tmp_path)}
        assert found["sleep"].level == level
        assert (str(path) in found["sleep"].text) == (level == "warning")


def test_a_core_that_the_machine_has_not(tmp_path):
    found = {finding.what: finding for finding in check_machine(Rig(arm="127.0.0.1", core=999), tmp_path)}
    assert found["cores"].level == "failed"
    assert "core: 999" in found["cores"].text
