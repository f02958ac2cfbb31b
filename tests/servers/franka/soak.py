"""An actor at work without end in front of twin, control process and server: what grows, and what drifts.

In lockstep, the twin's time waiting for the actor as in training, so that nothing depends on the machine's speed.
"""

import contextlib
import multiprocessing
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rig import end, free_port, start_twin
from serl_envs.remote_scene import RemoteScene
from serl_envs.remote_twin import RemoteTwin
from serl_envs.robot import RobotFault, Setpoint
from serl_envs.tasks.reach import Reach
from serl_servers.franka.config import TICK_S, ServerConfig
from serl_servers.franka.records import Phase
from serl_servers.franka.service import RobotService

HOME, DOWN = np.array([0.45, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0])
STEPS = 50
"""Of an episode."""
SAMPLE_S = 1.0
SETTLED_TICKS = 200
"""After a motion has begun: states before its first torque are not counted, and shares are of the last 100 ticks."""
WARM = 0.3
"""Share of the time after which nothing may grow any more."""


class Soak(NamedTuple):
    """What came of it."""

    arm_s: float
    """Robot time."""
    real_s: float
    drift_ms: int
    """By how much the twin's clock and the control loop's count of milliseconds in motion differ in the end."""
    grown_mb: dict[str, float]
    """Resident memory of each process in the last third beyond that once all was warm: medians."""
    worst_rate: float
    """Least share of a hundred commands that came in time."""
    stops: list[str]
    """Faults that came and were recovered from."""


def work(address: str, ip: str) -> None:
    """Episodes of random setpoints around a place, the gripper opening and closing, a reset after each, which recovers
    where a fault has ended the episode."""
    rng = np.random.default_rng(0)
    scene = RemoteScene(Reach(), "FrankaReach-v0", f"tcp://{ip}:1339")
    robot = RemoteTwin(scene, address, name="soak")
    while True:
        robot.reset(HOME, DOWN, 0.08)
        with contextlib.suppress(RobotFault):
            for k in range(STEPS):
                goal = HOME + rng.uniform(-0.05, 0.05, 3)
                robot.command(Setpoint(goal, DOWN, 0.08 if k // 10 % 2 else 0.02), 0.1)
                robot.observe()


def soak(folder: Path, ip: str, seconds: float) -> Soak:
    """Runs for so long in real time. The server is this process, so that its own counters can be read."""
    twin = start_twin(ip, folder, "--mode", "lockstep")
    service = RobotService(ServerConfig(ip=ip, bind=(address := f"tcp://127.0.0.1:{free_port()}")))
    actor = multiprocessing.get_context("spawn").Process(target=work, args=(address, ip), daemon=True)
    actor.start()
    link = service.link
    pids = {"twin": twin.pid, "server": multiprocessing.current_process().pid, "actor": actor.pid}
    samples: list[list[float]] = []
    stops: list[str] = []
    worst, drift_s, began, arm_began = 1.0, 0.0, time.monotonic(), float(link.state.time[0])
    ticks, arm_time, stopped, moving_since = 0, 0.0, True, 0
    try:
        while (now := time.monotonic() - began) < seconds and actor.is_alive():
            service.turn()
            state, before = link.state, (ticks, arm_time, stopped)
            ticks, arm_time, stopped = (
                int(state.ticks[0]),
                float(state.time[0]),
                link.phase is not Phase.RUNNING,
            )
            if stopped:
                moving_since = ticks
                stops += [f"{link.fault} after {arm_time:.1f} s: {link.detail}"] if not before[2] else []
            if min(ticks, before[0]) > moving_since + SETTLED_TICKS:
                drift_s += arm_time - before[1] - TICK_S * (ticks - before[0])
                worst = min(worst, float(state.success_rate[0]))
            if now > SAMPLE_S * len(samples) and link.alive:
                samples.append([resident_mb(pid) for pid in (*pids.values(), link.pid)])
        assert actor.is_alive()
    finally:
        actor.kill()
        actor.join()
        service.close()
        end(twin)
    memory = np.array(samples)
    warm, late = int(WARM * len(memory)), int(0.67 * len(memory))
    grown = np.median(memory[late:], axis=0) - np.median(memory[warm:late], axis=0)
    grown_mb = dict(zip((*pids, "control process"), map(float, grown), strict=True))
    return Soak(arm_time - arm_began, now, round(1e3 * drift_s), grown_mb, worst, stops)


def resident_mb(pid: int | None) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6
