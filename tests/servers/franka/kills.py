"""Kills and cuts at random moments, and what the twin's own log of every millisecond says that the arm did then."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
from rig import ENVIRONMENT, Rig, free_port, is_alive, plugged, report, running, wait_until
from serl_envs.twins.fci.arm_packets import RobotMode
from serl_hardware.franka.model import TCP_SITE, add_franka

from serl_suite.wire.robot_client import RobotClient, RobotRefused
from serl_suite.wire.robot_messages import Recover, Reset

MOVER = Path(__file__).with_name("mover.py")
ABOVE_TABLE, DOWN = (0.45, 0.0, 0.03), (1.0, 0.0, 0.0, 0.0)
TANK_MAX_J, TANK_MIN_J = 3.0, 0.1
FORCE_N = 25.0
"""Stiffness times clip of the server as it comes."""
AT_REST = 0.05
"""[rad/s] of any joint."""
SUSTAINED_TICKS = 100
"""A force is averaged over so long: the blow at a first touch is a matter of speed and mass, not of the spring."""

VICTIMS = ("actor", "server", "control process", "arm", "cable to the server", "cable to the arm")
FAULTS = {
    "actor": "stale_setpoint", "server": "", "control process": "control_process_died", "arm": "connection_lost",
    "cable to the server": "stale_setpoint", "cable to the arm": "connection_lost",
}  # fmt: skip
"""What the server says; nothing where it is the victim."""

MISSED_S = 11.0
"""In lockstep an arm that hears nothing waits half a second for each of the 20 milliseconds that end a motion."""


class Kill(NamedTuple):
    """One of them."""

    victim: str
    named_s: float
    """From the kill until the server said so, in real time."""
    begun: np.ndarray
    """Joints when the tank had been filled last, as told to the client. Shape: (7,)."""
    struck: np.ndarray
    """Joints just before. Shape: (7,)."""


class Found(NamedTuple):
    """What the twin's log says of a kill."""

    rest_s: float
    """From the kill until no joint was faster than `AT_REST` any more."""
    ended_s: float
    """From the kill until the arm's motion had ended."""
    work_j: float
    """The most that the motors had put into the arm since the tank was filled."""
    force_n: float
    """The greatest sustained one along any axis between tool and surroundings."""


@contextlib.contextmanager
def moving(rig: Rig) -> Iterator[subprocess.Popen[bytes]]:
    """An actor that moves the arm; killed at the end."""
    actor = subprocess.Popen(
        [sys.executable, str(MOVER), rig.actors_address or rig.address],
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    try:
        assert actor.stdout is not None
        assert actor.stdout.readline() == b"moving\n"
        yield actor
    finally:
        actor.kill()
        actor.wait()


@contextlib.contextmanager
def observing(rig: Rig) -> Iterator[RobotClient]:
    with contextlib.closing(RobotClient(rig.address, name="observer")) as client:
        yield client


def random_moment(seed: int) -> None:
    time.sleep(0.2 + random.Random(seed).random())


def recovered(client: RobotClient) -> None:
    """Recovers, having waited for control and for the time that lies between recoveries."""
    deadline = time.monotonic() + 30.0
    while True:
        try:
            client.keep_control()
            client.ask(Recover(number=client.next_number(), reason="the test"), 60.0)
            break
        except RobotRefused as refusal:
            soon = "at most one" in str(refusal) or "controls the arm" in str(refusal)
            if not soon or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    client.release()
    wait_until(lambda: client.await_state().phase == "running", 5.0)
    assert client.state.fault == ""


def reset(client: RobotClient) -> np.ndarray:
    """Goes to where the kills begin, as a server that is well does; returns the joints there."""
    client.keep_control()
    client.ask(Reset(number=client.next_number(), position=ABOVE_TABLE, quaternion=DOWN), 60.0)
    client.release()
    arm = client.await_state()
    assert np.abs(np.array(arm.position) - ABOVE_TABLE).max() < 0.005
    return np.array(arm.q)


@contextlib.contextmanager
def hunting_ground(folder: Path, ip: str, over: str | None = None) -> Iterator[Rig]:
    """Twin in lockstep, server, and cables to cut; afterwards nothing of them may be left.

    The twin's log is twin.npz in the folder.

    Args:
        ip: Of the twin.
        over: Of a cable to it; None: the server reaches it directly.
    """
    mark, shared = f"SERL_RIG={folder}", set(Path("/dev/shm").iterdir())
    ENVIRONMENT["SERL_RIG"] = str(folder)
    tank = ("--control.tank-max", str(TANK_MAX_J), "--control.tank-min", str(TANK_MIN_J))
    twin = ("--mode", "lockstep", "--log", str(folder / "twin.npz"))
    try:
        with contextlib.ExitStack() as stack:
            cables = {}
            if over is not None:
                cables["cable to the arm"] = stack.enter_context(plugged(folder, over, ip, "1337", "1338"))
            rig = stack.enter_context(running(folder, ip, *tank, twin=twin, over=over))
            here, there = free_port(), int(rig.address.rsplit(":", 1)[1])
            ports = (f"{here}:{there}", f"{here + 1}:{there + 1}")
            cables["cable to the server"] = stack.enter_context(
                plugged(folder, "127.0.0.1", "127.0.0.1", *ports)
            )
            rig.cables, rig.actors_address = cables, f"tcp://127.0.0.1:{here}"
            yield rig
    finally:
        del ENVIRONMENT["SERL_RIG"]
    assert processes(mark) == [], "an orphan is left"
    assert set(Path("/dev/shm").iterdir()) <= shared, "shared memory is left"
    assert "Traceback" not in rig.log.read_text()


def processes(mark: str) -> list[int]:
    """Those that have this among their environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in environment.read_bytes().split(b"\0") and is_alive(
                int(environment.parent.name)
            ):
                found.append(int(environment.parent.name))
    return found


def kill(rig: Rig, victim: str, seed: int) -> Kill:
    """Kills the victim at a random moment under way, checks what the server makes of it, and mends it."""
    with observing(rig) as client:
        begun, pid = reset(client), report(client).control_pid
        with moving(rig) as actor:
            random_moment(seed)
            struck, at = np.array(client.await_state().q), time.monotonic()
            _strike(rig, victim, actor, pid)
            if victim == "server":
                wait_until(lambda: not is_alive(pid), 5.0, "the control process ends with its server")
            else:
                wait_until(lambda: client.await_state().fault, 5.0, "the fault is named")
                assert client.state.fault == FAULTS[victim], client.state.detail
            named_s = time.monotonic() - at
        if victim != "server":
            wait_until(lambda: client.await_state().phase in ("stopped", "ended"), 5.0)
            _mend(rig, victim)
            recovered(client)
    if victim == "server":
        rig.server = rig.start_server()
    if victim in ("server", "control process"):
        assert not is_alive(pid)
    return Kill(victim, named_s, begun, struck)


def _strike(rig: Rig, victim: str, actor: subprocess.Popen[bytes], control_pid: int) -> None:
    match victim:
        case "actor":
            actor.kill()
        case "server":
            rig.server.kill()
            rig.server.wait()
        case "control process":
            os.kill(control_pid, signal.SIGKILL)
        case "arm":
            rig.twin.kill()
            rig.twin.wait()
        case _:
            rig.cables[victim].send_signal(signal.SIGSTOP)


def _mend(rig: Rig, victim: str) -> None:
    if victim == "arm":
        rig.twin = rig.start_twin()
    elif victim == "cable to the arm":
        time.sleep(MISSED_S)
    if victim in rig.cables:
        rig.cables[victim].send_signal(signal.SIGCONT)


def audit(log: Path, kills: list[Kill]) -> list[Found]:
    """What the twin's log says of kills that it outlived, in their order."""
    rows, at, found = dict(np.load(log)), 0, []
    seen = rows["q"].astype(np.float32)
    moves = rows["mode"] == RobotMode.MOVE
    fast = np.abs(rows["dq"]).max(axis=1) > AT_REST

    def row(q: np.ndarray, after: int) -> int:
        """The arm's state is told in 32 bits, by which it is found again."""
        return after + int(np.flatnonzero((seen[after:] == q.astype(np.float32)).all(axis=1))[0])

    for one in kills:
        begun = row(one.begun, at)
        struck = row(one.struck, begun)
        ended = struck + int(np.flatnonzero(~moves[struck:])[0])
        again = np.flatnonzero(moves[ended:])
        at = ended + int(again[0]) if again.size else len(seen)
        last_fast = np.flatnonzero(fast[struck:at])
        work = rows["work"][begun:at] - rows["work"][begun]
        part = slice(begun, at)
        force = np.abs(sustained(forces(rows["q"][part], rows["tau_external"][part]))).max()
        found.append(
            Found(
                rest_s=1e-3 * (int(last_fast[-1]) + 1) if last_fast.size else 0.0, ended_s=1e-3 * (ended - struck),
                work_j=float(work.max()), force_n=float(force),
            )
        )  # fmt: skip
    return found


def sustained(forces: np.ndarray) -> np.ndarray:
    """Moving averages. Shape: (ticks, 3)."""
    sums = np.cumsum(forces, axis=0)
    return (sums[SUSTAINED_TICKS:] - sums[:-SUSTAINED_TICKS]) / SUSTAINED_TICKS


def forces(q: np.ndarray, tau_external: np.ndarray) -> np.ndarray:
    """The force at the TCP that explains external torques best. Shapes: (ticks, 7), (ticks, 7) -> (ticks, 3) [N]."""
    spec = mujoco.MjSpec()
    add_franka(spec)
    model = spec.compile()
    data, site = mujoco.MjData(model), model.site(TCP_SITE).id
    linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    forces = np.empty((len(q), 3))
    for k, (joints, tau) in enumerate(zip(q, tau_external, strict=True)):
        data.qpos[:7] = joints
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, linear, angular, site)
        jacobian = np.vstack([linear, angular])[:, :7]
        forces[k] = np.linalg.lstsq(jacobian.T, tau, rcond=None)[0][:3]
    return forces
