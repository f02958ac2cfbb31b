"""Twins in processes of their own, and clients in others."""

import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from serl_envs.twins.fci import arm_packets as packets

CLIENTS = Path(__file__).with_name("clients.py")
START_S = 120
"""The first start compiles the control code."""

_numbers = itertools.count(1)


def _address():
    """Nobody else's: the ports are fixed, so every twin of every test process takes an address of its own."""
    process, number = os.getpid() % 60_000, next(_numbers)
    return f"127.{1 + process // 250}.{process % 250}.{number}"


class Twin:
    """A running twin.

    Args:
        folder: For what it says.
        task: Whose scene.
        arguments: Further words of its command line.
    """

    def __init__(self, folder, task="FrankaReach-v0", *arguments):
        self.address = _address()
        self.said = folder / f"twin-{self.address}.txt"
        command = [sys.executable, "-m", "serl_envs.twins.fci", "--port-ip", self.address, "--task", task]
        self._command = [*command, *map(str, arguments)]
        self.restart()

    def restart(self):
        """Starts it, after its death again."""
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                self._command, stdout=said, stderr=subprocess.STDOUT, env=environment
            )
        end = time.monotonic() + START_S
        while "Ctrl-C" not in self.said.read_text():
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < end, "the twin does not start"
            time.sleep(0.05)

    def start(self, name, *arguments):
        """Starts a client, where its library is to be had."""
        if find_spec("pylibfranka") is None:
            pytest.skip("no pylibfranka for this machine")
        command = [sys.executable, str(CLIENTS), name, self.address, *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def client(self, name, *arguments, timeout=60):
        """Runs a client to its end and returns what it found."""
        return self.finish(self.start(name, *arguments), timeout)

    def finish(self, process, timeout=60):
        """Waits for a client and returns what it found."""
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0, err
        return json.loads(out.splitlines()[-1])

    def stop(self):
        """Ends the twin as Ctrl-C does."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.said.read_text()
        assert "Traceback" not in self.said.read_text()


class RawArm:
    """A client of the arm that can also say what no library would."""

    def __init__(self, address, version=packets.VERSION):
        self.states = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.states.bind(("127.0.0.1", 0))
        self.states.settimeout(5)
        self.stream = socket.create_connection((address, packets.PORT), timeout=5)
        self._number = 0
        port = self.states.getsockname()[1]
        self.connected = self.ask(packets.ArmCommand.CONNECT, packets.CONNECT.pack(version, port))

    def ask(self, command, payload=b""):
        """Sends a request and returns the payload of its first reply."""
        self._number += 1
        size = packets.HEADER.size + len(payload)
        self.stream.sendall(packets.HEADER.pack(command, self._number, size) + payload)
        return self.reply()[1]

    def reply(self):
        """Returns (id, payload) of the next reply; (None, b"") once the arm has closed the connection."""
        header = self._exactly(packets.HEADER.size)
        if not header:
            return None, b""
        _, number, size = packets.HEADER.unpack(header)
        return number, self._exactly(size - packets.HEADER.size)

    def move(self, controller=2, generator=4):
        """Starts a motion, by torque unless said otherwise; returns the first status."""
        return self.ask(
            packets.ArmCommand.MOVE, packets.MOVE.pack(controller, generator, *[10.0] * 6, False, *[0.0] * 7)
        )

    def state(self):
        """The next state, and from where it came."""
        packet, self.arm = self.states.recvfrom(4096)
        return np.frombuffer(packet, packets.STATE)[0]

    def newest(self):
        """The newest state there is."""
        state = self.state()
        while select.select([self.states], [], [], 0)[0]:
            state = self.state()
        return state

    def command(self, state, **fields):
        """Answers a state."""
        command = np.zeros((), packets.COMMAND)
        command["message_id"] = state["message_id"]
        for name, value in fields.items():
            command[name] = value
        self.states.sendto(command.tobytes(), self.arm)

    def command_until_it_ends(self, **fields):
        """Answers each state of a motion until its second reply, which it returns: on a busy machine a state that is
        answered may be the newest no more. A field may be a function of the state."""
        while not select.select([self.stream], [], [], 0)[0]:
            state = self.newest()
            if state["robot_mode"] == packets.RobotMode.MOVE:
                values = {name: value(state) if callable(value) else value for name, value in fields.items()}
                self.command(state, **values)
        return self.reply()[1]

    def close(self):
        self.stream.close()
        self.states.close()

    def _exactly(self, count):
        out = b""
        while len(out) < count:
            try:
                chunk = self.stream.recv(count - len(out))
            except ConnectionResetError:
                return b""
            if not chunk:
                return b""
            out += chunk
        return out


@pytest.fixture
def raw_arm():
    """Connects raw clients: `raw_arm(twin)`."""
    clients = []

    def connect(twin, **arguments):
        clients.append(RawArm(twin.address, **arguments))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def _kill(twins):
    for twin in twins:
        if twin.process.poll() is None:
            twin.process.kill()
            twin.process.wait()


@pytest.fixture
def start_twin(tmp_path):
    """Starts twins: `start_twin(task, *arguments)`; what still runs in the end is killed."""
    twins = []

    def start(task="FrankaReach-v0", *arguments):
        twins.append(Twin(tmp_path, task, *arguments))
        return twins[-1]

    yield start
    _kill(twins)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """One for all tests of a module, in lockstep; it must end well."""
    running = Twin(tmp_path_factory.mktemp("twin"), "FrankaReach-v0", "--mode", "lockstep")
    yield running
    if running.process.poll() is None:
        running.stop()
    _kill([running])


@pytest.fixture
def fresh_twin(start_twin):
    """In lockstep, at its start."""
    return start_twin("FrankaReach-v0", "--mode", "lockstep")
