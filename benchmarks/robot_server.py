"""How long a setpoint takes from the client to the first torque that reflects it, and what the robot server's control
loop makes of a minute, in lockstep and in real time.

    python benchmarks/robot_server.py [--json FILE]

The wire twin in real time, the server with its control process, and the client are processes of their own, as on a
robot's workstation. The latency ends when the torque has been handed to the arm's library, in the control process's
own stamp of it (CLOCK_MONOTONIC is one for all processes). Up to a millisecond of it is the wait for the arm's next
state. The baseline of the same run is bare pyzmq: as many bytes from process to process and nothing else.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _one_way import one_way
from _table import Row, print_table, write_json

from serl_suite.wire.robot_client import RobotClient
from serl_suite.wire.robot_messages import Follow, encode

IP, ADDRESS = "127.0.8.1", "tcp://127.0.0.1:5855"
SETPOINTS = 3000
PERIOD_S = 0.01
MINUTE_S = 60.0
"""Of arm time."""
COUNTED_S = 0.5
"""The arm's share of commands in time is one of the last 100; it begins to count after so long."""
TARGET_P99_MS, TARGET_SPEED, TARGET_RATE = 3.0, 1.5, 0.97


@contextmanager
def started(folder: Path, name: str, ready: str, *arguments: str) -> Iterator[None]:
    """A process of its own, from when it says that it is ready until the end of the block."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdout=output, stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        while ready not in log.read_text():
            if process.poll() is not None:
                raise SystemExit(f"{name} did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@contextmanager
def rig(mode: str) -> Iterator[RobotClient]:
    """Twin, server and a client of it."""
    twin = ("serl_envs.twins.fci", "--port-ip", IP, "--task", "FrankaReach-v0", "--mode", mode, "--urgent")
    server = ("serl_servers.franka", "franka", "--ip", IP, "--bind", ADDRESS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            started(folder, "twin", "ports 1337", *twin),
            started(folder, "server", "serving the arm", *server),
            closing(RobotClient(ADDRESS, name="benchmark")) as client,
        ):
            client.keep_control()
            yield client


def follow(client: RobotClient, start: tuple[float, ...], phase: float) -> Follow:
    """A setpoint on a small circle, so that the arm is at work."""
    x, y, z = start[:3]
    state = client.state
    return Follow(
        number=client.next_number(), deadline_s=state.time_s + 0.1, quaternion=state.quaternion,
        position=(x + 0.01 * float(np.sin(phase)), y + 0.01 * float(np.cos(phase)), z),
    )  # fmt: skip


def latencies() -> tuple[list[float], float]:
    """Seconds from sending to the torque, in real time, and the arm's worst share of commands in time."""
    found, worst, rng = [], 1.0, random.Random(0)
    with rig("realtime") as client:
        start = client.await_state().position
        for i in range(SETPOINTS):
            request = follow(client, start, 0.05 * i)
            sent_ns = time.monotonic_ns()
            client.send(request)
            deadline = time.monotonic() + 0.5
            while client.await_state().setpoint != request.number:
                if client.state.fault or time.monotonic() > deadline:
                    raise SystemExit(
                        f"setpoint {i} had no effect: {client.state.fault} {client.state.detail}"
                    )
            found.append((client.state.setpoint_ns - sent_ns) * 1e-9)
            if i > 100:
                worst = min(worst, client.state.success_rate)
            # at no fixed place between two ticks
            time.sleep(PERIOD_S * rng.random())
    return found, worst


class Minute(NamedTuple):
    """The arm at work for a minute."""

    speed: float
    """Robot time over real time."""
    mean: float
    """Share of commands in time."""
    worst: float
    """Of any hundred."""
    fault: str


def work(mode: str) -> Minute:
    """Circles, until a minute of arm time has passed or the arm has stopped."""
    rates = []
    with rig(mode) as client:
        start, began, began_s = client.await_state().position, time.monotonic(), client.state.time_s
        while client.state.time_s - began_s < MINUTE_S and not client.state.fault:
            client.send(follow(client, start, client.state.time_s))
            for _ in range(5):
                state = client.await_state()
            if state.time_s - began_s > COUNTED_S:
                rates.append(state.success_rate)
        speed = (client.state.time_s - began_s) / (time.monotonic() - began)
        return Minute(speed, float(np.mean(rates)), min(rates), client.state.fault)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    seconds, success = latencies()
    lockstep, load = work("lockstep"), os.getloadavg()[0]
    realtime = work("realtime")
    request = Follow(number=1, position=(0.4, 0.0, 0.3), quaternion=(1.0, 0.0, 0.0, 0.0), deadline_s=1.0)
    bare = one_way([encode(request)], count=SETPOINTS, period_s=0.5 * PERIOD_S)
    ours, baseline = (np.percentile(np.array(values) * 1e3, [50, 99]) for values in (seconds, bare))
    rows = [
        Row(
            f"setpoint to torque, {SETPOINTS} setpoints, real time, p50 / p99",
            f"{ours[0]:.2f} / {ours[1]:.2f} ms",
            f"{baseline[0]:.2f} / {baseline[1]:.2f} ms, bare pyzmq, one way",
            f"p99 <= {TARGET_P99_MS:.0f} ms",
            bool(ours[1] <= TARGET_P99_MS),
        ),
        Row("worst share of commands in time meanwhile", f"{success:.2f}", "", "", None),
        Row(
            f"robot time over real time, lockstep, {MINUTE_S:.0f} s of arm time",
            f"{lockstep.speed:.2f}", "", f">= {TARGET_SPEED}", lockstep.speed >= TARGET_SPEED,
        ),
        Row(
            "worst share of commands in time meanwhile",
            f"{lockstep.worst:.2f} {lockstep.fault}", "", "1.00", lockstep.worst == 1.0 and not lockstep.fault,
        ),
        Row(
            f"share of commands in time, real time, {MINUTE_S:.0f} s (load before: {load:.1f} on {os.cpu_count()})",
            f"{realtime.mean:.3f}, worst {realtime.worst:.2f}", "", f">= {TARGET_RATE}", realtime.mean >= TARGET_RATE,
        ),
        Row("fault meanwhile", realtime.fault or "none", "", "none", not realtime.fault),
    ]  # fmt: skip
    passed = print_table("robot server", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
