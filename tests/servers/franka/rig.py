"""The wire twin and the robot server as the processes that a user starts, on an address of their own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from serl_suite.wire.robot_client import RobotClient, RobotRefused
from serl_suite.wire.robot_messages import Recover, ServerReport, ShowStatus

START_S = 90.0
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@dataclass
class Rig:
    """What a test needs to reach, to kill and to start them again."""

    address: str
    """Of the robot server."""
    ip: str
    """At which the server finds the arm."""
    twin: subprocess.Popen[bytes]
    server: subprocess.Popen[bytes]
    folder: Path
    start_twin: Callable[[], subprocess.Popen[bytes]]
    start_server: Callable[[], subprocess.Popen[bytes]]
    cables: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """To cut, by name."""
    actors_address: str | None = None
    """Of the server, where actors reach it over a cable."""

    @property
    def log(self) -> Path:
        """Of the server."""
        return self.folder / "server.log"


def free_port() -> int:
    """The lower of two ports that are free."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + 1))
                return port


def start(arguments: list[str], log: Path, ready: str) -> subprocess.Popen[bytes]:
    """Starts `python -m ...` and waits until it says that it is ready."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdout=output, stderr=subprocess.STDOUT, env=ENVIRONMENT
        )
    deadline = time.monotonic() + START_S
    while ready not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"{arguments[0]} did not start:\n{log.read_text()}")
        time.sleep(0.05)
    return process


def start_twin(ip: str, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    arguments = ["serl_envs.twins.fci", "--port-ip", ip, "--task", "FrankaReach-v0", *options]
    return start(arguments, folder / f"twin_{time.monotonic_ns()}.log", "ports 1337")


def start_server(ip: str, address: str, log: Path, *options: str) -> subprocess.Popen[bytes]:
    log.unlink(missing_ok=True)
    arguments = ["serl_servers.franka", "franka", "--ip", ip, "--bind", address, *options]
    return start(arguments, log, "serving the arm")


def end(process: subprocess.Popen[bytes]) -> int:
    """Asks it to end, as Ctrl-C does."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@contextlib.contextmanager
def running(
    folder: Path,
    ip: str,
    *options: str,
    twin: tuple[str, ...] = ("--mode", "lockstep"),
    over: str | None = None,
) -> Iterator[Rig]:
    """A twin with its options and a server with these, until the end of the block.

    Args:
        over: The address of a cable that leads to the twin's.
    """
    address = f"tcp://127.0.0.1:{free_port()}"

    def twin_again() -> subprocess.Popen[bytes]:
        return start_twin(ip, folder, *twin)

    def server_again() -> subprocess.Popen[bytes]:
        return start_server(over or ip, address, folder / "server.log", *options)

    arm = twin_again()
    try:
        rig = Rig(address, ip, arm, server_again(), folder, twin_again, server_again)
    except BaseException:
        end(arm)
        raise
    try:
        yield rig
    finally:
        try:
            end(rig.server)
        finally:
            end(rig.twin)


@contextlib.contextmanager
def plugged(folder: Path, here: str, there: str, *ports: str) -> Iterator[subprocess.Popen[bytes]]:
    """A cable from one IP address to another, until the end of the block; see `cable.py`."""
    log = folder / f"cable_{here}.log"
    with log.open("wb") as output:
        cable = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("cable.py")), here, there, *ports],
            stdout=output, stderr=subprocess.STDOUT, env=ENVIRONMENT,
        )  # fmt: skip
    try:
        wait_until(lambda: "plugged in" in log.read_text(), 10.0, "the cable is plugged in")
        yield cable
    finally:
        cable.kill()
        cable.wait()


def report(client: RobotClient) -> ServerReport:
    answer = client.ask(ShowStatus(number=client.next_number()))
    assert isinstance(answer, ServerReport)
    return answer


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, timeout_s: float = 10.0, what: str = "") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def recover(client: RobotClient, within_s: float = 20.0) -> None:
    """Clears what the test before has left; recoveries come 2 s apart."""
    deadline = time.monotonic() + within_s
    while client.await_state().fault:
        assert time.monotonic() < deadline, client.state.detail
        with contextlib.suppress(RobotRefused):
            client.keep_control()
            client.ask(Recover(number=client.next_number(), reason="the test before"), 20.0)
        time.sleep(0.1)
