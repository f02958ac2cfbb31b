"""Who is let in, and what a server says that cannot start."""

import contextlib
import os
import platform
import socket
import struct
import subprocess
import sys
import threading

import pytest
from rig import ENVIRONMENT, free_port, report, running

pytest.importorskip("pylibfranka")

from serl_servers.franka.command_line import run
from serl_servers.franka.config import ControlSettings, make_driver
from serl_servers.franka.driver import DriverError

from serl_suite.control import ControlConfig
from serl_suite.wire.keys import ClientKeys, client_keys, make_keys
from serl_suite.wire.robot_client import RobotClient, RobotUnreachable

IP = "127.0.7.6"
NOBODY = "127.0.7.250"


def serve(*arguments):
    """What `serl robot franka` answers when it cannot start."""
    done = subprocess.run(
        [sys.executable, "-m", "serl_servers.franka", "franka", *arguments],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def address():
    return f"tcp://127.0.0.1:{free_port()}"


def test_only_known_keys_are_let_in(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setitem(ENVIRONMENT, "XDG_CONFIG_HOME", str(tmp_path))
    for name in ("robot", "actor"):
        make_keys(name)
    stranger = make_keys("stranger", tmp_path / "elsewhere")
    with running(tmp_path, IP, "--keys", "robot") as rig:
        known = client_keys("actor", "robot")
        with contextlib.closing(RobotClient(rig.address, known, name="actor")) as client:
            client.keep_control()
            assert report(client).controller.startswith("actor")
        own = (tmp_path / "elsewhere" / "stranger.secret").read_bytes().strip()
        unknown = ClientKeys(known.own._replace(public=stranger.public.encode(), secret=own), known.server)
        for keys in (unknown, None):
            with pytest.raises(RobotUnreachable):
                RobotClient(rig.address, keys, name="stranger")


def test_off_the_machine_only_with_keys():
    assert "no keys" in serve("--ip", NOBODY, "--bind", "tcp://0.0.0.0:5999")


def test_an_arm_that_does_not_answer_is_named():
    said = serve("--ip", NOBODY, "--no-hand", "--bind", address())
    assert NOBODY in said
    assert "activate FCI" in said


def test_a_hand_that_does_not_answer_is_named():
    said = serve("--ip", NOBODY, "--bind", address())
    assert f"no hand at {NOBODY}:1338" in said
    assert "--no-hand" in said


@contextlib.contextmanager
def another_version(ip, port, header, status, version):
    """Somebody who answers Connect with a version of their own."""

    def answer():
        client = listener.accept()[0]
        command, number, _ = header.unpack(client.recv(header.size, socket.MSG_WAITALL))
        reply = struct.pack(status, 1, version)
        client.sendall(header.pack(command, number, header.size + len(reply)) + reply)
        client.recv(64)
        client.recv(64)  # until it is closed

    with socket.create_server((ip, port)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join(10.0)


def test_an_arm_of_another_version_is_named():
    ip = "127.0.7.9"
    with another_version(ip, 1337, struct.Struct("<III"), "<BH", 9):
        said = serve("--ip", ip, "--no-hand", "--bind", address())
    assert f"the arm at {ip} speaks another version of FCI" in said
    assert "server version: 9, library version: 10" in said


def test_a_hand_of_another_version_is_named():
    ip = "127.0.7.13"
    with another_version(ip, 1338, struct.Struct("<HII"), "<HH", 2):
        said = serve("--ip", ip, "--bind", address())
    assert f"the hand at {ip} speaks version 2 and this server 3" in said


@pytest.mark.skipif("PREEMPT_RT" in platform.version(), reason="this kernel is real-time")
def test_an_arm_of_metal_needs_a_real_time_kernel():
    said = serve("--ip", "192.0.2.1", "--no-hand", "--bind", address())
    assert "is not real-time (PREEMPT_RT)" in said
    assert "--no-require-realtime" in said


def test_what_the_kernel_does_not_permit_is_said(tmp_path):
    program = (
        "import pathlib; from serl_servers.franka import realtime; "
        f"realtime.WAKE_LATENCY = pathlib.Path({str(tmp_path)!r}); print(*realtime.make_realtime(4711), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "core: NOT 4711" in done.stdout
    assert "sleep: cores NOT kept awake" in done.stdout
    assert str(tmp_path) in done.stdout


def test_a_box_that_is_none_is_refused():
    said = serve(
        "--ip", NOBODY, "--no-hand", "--bind", address(),
        "--control.box-lower", "0.5", "0", "0", "--control.box-upper", "0.4", "1", "1",
    )  # fmt: skip
    assert "box_lower must lie below" in said


def test_without_pylibfranka_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pylibfranka", None)
    with pytest.raises(DriverError, match=r"serl-suite\[franka\]"):
        make_driver(ControlSettings(ip=NOBODY, control=ControlConfig()))


def test_an_unknown_driver_is_named():
    with pytest.raises(DriverError, match="no driver 'ros'"):
        make_driver(ControlSettings(driver="ros"))


def test_commands(capsys):
    assert run(["--help"]) == 0
    assert "serl robot jog" in capsys.readouterr().out
    assert run(["stauts"]) == 2
    assert "did you mean status" in capsys.readouterr().out
    with pytest.raises(RobotUnreachable, match="serl robot franka"):
        run(["status", "--address", address()])


def test_an_operator_at_the_terminal_of_the_one_server_that_an_address_has(tmp_path, capsys):
    with running(tmp_path, "127.0.7.8") as rig:
        assert "in use" in serve("--ip", NOBODY, "--bind", rig.address)
        there = ["--address", rig.address]
        assert run(["status", *there]) == 0
        said = capsys.readouterr().out
        assert "127.0.7.8, running" in said
        assert "control     memory: " in said
        assert "control     sleep: " in said
        if os.geteuid() == 0:
            assert os.sched_getscheduler(rig.server.pid) == os.SCHED_FIFO
        assert run(["reset", *there]) == 0
        assert "0.30" in _status(there, capsys, "TCP")
        before = _tcp_z(there, capsys)
        assert run(["jog", "--z", "0.05", *there]) == 0
        assert _tcp_z(there, capsys) - before == pytest.approx(0.05, abs=0.006)
        assert run(["stop", "--reason", "lunch", *there]) == 0
        assert "stopped" in _status(there, capsys, "fault")
        assert run(["recover", "--reason", "back from lunch", *there]) == 0
        assert "none" in _status(there, capsys, "fault")
    assert "back from lunch" in rig.log.read_text()


def _status(there, capsys, about):
    capsys.readouterr()
    run(["status", *there])
    return next(line for line in capsys.readouterr().out.splitlines() if line.startswith(about))


def _tcp_z(there, capsys):
    return float(_status(there, capsys, "TCP").split("z")[1].split()[0])
