"""An actor that moves the arm to and fro until it is killed: `python mover.py ADDRESS`."""

import sys

import numpy as np
from serl_envs.remote import RemoteRobot
from serl_envs.robot import Setpoint

robot = RemoteRobot(sys.argv[1], name="mover")
home = robot.observe()
sys.stdout.write("moving\n")
sys.stdout.flush()
while True:
    for side in (-0.04, 0.04):
        for _ in range(5):
            goal = home.position + np.array([0.0, side, 0.0])
            robot.command(Setpoint(goal, home.quaternion, home.gripper_width), 0.1)
