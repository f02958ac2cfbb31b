"""A wire twin and a robot server as a user starts them, and the rig's file that names both."""

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from serl_suite.rig import Rig, read_rig

sys.path.insert(0, str(Path(__file__).parents[1] / "servers" / "franka"))
from rig import end, free_port, start

_numbers = itertools.count(1)


def make_rig(folder: Path, pace: str = "lockstep", **fields: object) -> Rig:
    """A rig at an address and ports that nobody else has."""
    number = next(_numbers)
    ip = f"127.{100 + os.getpid() // 250 % 100}.{os.getpid() % 250}.{number}"
    values = {
        "arm": ip, "scene": f"tcp://{ip}:1339", "server": f"tcp://127.0.0.1:{free_port()}", "pace": pace,
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
    log.unlink(missing_ok=True)
    process = start(list(arguments), log, ready)
    try:
        yield process
    finally:
        end(process)
