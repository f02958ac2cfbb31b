"""Into the table at full command, through the robot server, and the force that the twin's own log tells."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from kills import DOWN, forces, sustained
from rig import running
from serl_envs.remote import RemoteRobot
from serl_envs.robot import RobotFault, Setpoint
from serl_servers.franka.kinematics import flange_pose

from serl_suite.control import ControlConfig

START, PERIOD_S, PERIODS = np.array([0.45, 0.0, 0.08]), 0.1, 30
TOUCHED_N = 5.0
BLOW_TICKS = 100
"""How long after the first touch a force is the blow's, which mass and speed decide, and not the spring's."""

SPEED_TICKS = 10


class Collision(NamedTuple):
    """What the table felt."""

    speed: float
    """Of the TCP just before [m/s]."""
    blow_n: float
    """The greatest force of any millisecond."""
    force_n: float
    """The greatest sustained one after the blow."""
    fault: str
    """The arm's own reflex, if the blow was too much for it."""


def collide(folder: Path, ip: str, config: ControlConfig, step_m: float) -> Collision:
    """Steps down from the measured position again and again, as a policy at the end of its range; and goes on so after
    a recovery where the arm has stopped itself."""
    log = folder / "twin.npz"
    with running(folder, ip, *_options(config), twin=("--mode", "lockstep", "--log", str(log))) as rig:
        robot, fault = RemoteRobot(rig.address), ""
        try:
            robot.reset(START, np.array(DOWN), 0.0)
            for _ in range(PERIODS):
                below = robot.observe().position - np.array([0.0, 0.0, step_m])
                try:
                    robot.command(Setpoint(below, np.array(DOWN), 0.0), PERIOD_S)
                except RobotFault:
                    fault = robot.arm.fault
                    robot.recover("it is to press on")
        finally:
            robot.stop()
    rows = np.load(log)
    q, force = rows["q"], forces(rows["q"], rows["tau_external"])
    touched = int(np.flatnonzero(force[:, 2] > TOUCHED_N)[0])
    way = flange_pose(q[touched - 1])[0] - flange_pose(q[touched - 1 - SPEED_TICKS])[0]
    return Collision(
        speed=float(np.linalg.norm(way)) / (1e-3 * SPEED_TICKS), blow_n=float(force[touched:, 2].max()),
        force_n=float(np.abs(sustained(force[touched + BLOW_TICKS :])).max()), fault=fault,
    )  # fmt: skip


def _options(config: ControlConfig) -> list[str]:
    """The spring of a configuration as the server takes it on its command line."""
    options = []
    for name in ("stiffness", "clip_lower", "clip_upper"):
        options += [f"--control.{name.replace('_', '-')}", *map(str, getattr(config, name))]
    return options
