"""A wire twin and a robot server as a user starts them, and the rig's file that names both."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from serl_suite.rig import Rig, read_rig

START_S = 90.0
_numbers = itertools.count(1)


def make_rig(folder: Path, pace: str = "lockstep", **fields: object) -> Rig:
    """A rig at an address and ports that nobody else has."""
    number = next(_numbers)
    ip = f"127.{100 + os.getpid() // 250 % 100}.{os.getpid() % 250}.{number}"
    values = {
        "arm": ip, "scene": f"tcp://{ip}:1339", "server": f"tcp://127.0.0.1:{_free_ports()}", "pace": pace,
        "grasp_force_n": 70.0, **fields,
    }  # fmt: skip
    path = folder / f"rig{number}.yaml"
    path.write_bytes(msgspec.yaml.encode(values))
    return read_rig(path)


@contextlib.contextmanager
def twin(rig: Rig, task: str) -> Iterator[subprocess.Popen[bytes]]:
    """`serl twin franka`, until the end of the block."""
    with _started(rig, "twin", "Ctrl-C", "serl_envs.twins.fci", "--port-ip", rig.arm, "--task", task, "--mode",
                  rig.pace) as process:  # fmt: skip
        yield process


@contextlib.contextmanager
def server(rig: Rig) -> Iterator[subprocess.Popen[bytes]]:
    """`serl robot franka`, likewise."""
    with _started(rig, "server", "Ctrl-C", "serl_servers.franka", "franka", "--rig", rig.source) as process:
        yield process


@contextlib.contextmanager
def running(folder: Path, task: str, pace: str = "lockstep") -> Iterator[Rig]:
    """Both."""
    rig = make_rig(folder, pace)
    with twin(rig, task), server(rig):
        yield rig


@contextlib.contextmanager
def _started(rig: Rig, name: str, ready: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    log = Path(rig.source).with_suffix(f".{name}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdout=output, stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_S
        while ready not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        finally:
            process.kill()


def _free_ports() -> int:
    """The lower of two ports that are free."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + 1))
                return port
