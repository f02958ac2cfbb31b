"""An actor that leads the arm down by 7 cm and to and fro, until it is killed: `python mover.py ADDRESS`."""

import contextlib
import itertools
import sys

import numpy as np
from serl_envs.remote import RemoteRobot
from serl_envs.robot import RobotFault, Setpoint

robot = RemoteRobot(sys.argv[1], name="mover")
home = robot.observe()
sys.stdout.write("moving\n")
sys.stdout.flush()
with contextlib.suppress(RobotFault):
    for k in itertools.count():
        way = np.array([0.0, 0.04 if k // 5 % 2 else -0.04, -min(0.005 * k, 0.07)])
        robot.command(Setpoint(home.position + way, home.quaternion, home.gripper_width), 0.1)
