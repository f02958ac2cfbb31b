"""A compliant ROS 2 controller with an arm behind it, as a process of its own: a mass on a critically damped spring.

    python compliant_controller.py NAMESPACE [FRAME]

The arm has 7 joints: q[:3] are the TCP's position, q[3:6] its rotation vector, q[6] moves nothing but itself. A hand
shares the topic of the joint states. USR1 makes it report NaN, USR2 lets its clock jump back by 100 s; each once.
"""

import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from graph import Graph, joints, pose, position_of, quaternion_of, wrench

from serl_suite.control.rotations import quaternion_from_rotation_vector, rotation_vector_from_quaternion

NAMES = [f"fr3_joint{i}" for i in range(1, 8)]
PERIOD_S = 0.01
PACE = 0.5
"""By how much its time is slower than the machine's, which is shared by many processes: deadlines are in its time."""
OMEGA = 15.0
"""Of the spring and its mass [rad/s]."""
WALL_M = 0.6
"""In x; nothing goes beyond."""
START = np.array([0.45, 0.0, 0.35, 0.1, 0.0, 0.0, 0.3])

namespace, frame = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "base"
graph = Graph()
joint_states = graph.talk("JointState", f"{namespace}/joint_states")
hand = graph.talk("JointState", f"{namespace}/joint_states")
current_pose = graph.talk("PoseStamped", f"{namespace}/current_pose")
wrenches = graph.talk("WrenchStamped", f"{namespace}/wrench")
target_pose = graph.listen("PoseStamped", f"{namespace}/target_pose")
target_joint = graph.listen("JointState", f"{namespace}/target_joint")
asked: list[int] = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(signal.SIGUSR1))
signal.signal(signal.SIGUSR2, lambda *_: asked.append(signal.SIGUSR2))
sys.stdout.write("controlling\n")
sys.stdout.flush()

q, dq, target, clock_s, count = START.copy(), np.zeros(7), START.copy(), 1000.0, 0
last = time.monotonic()
while True:
    time.sleep(PERIOD_S)
    now = time.monotonic()
    dt, last = PACE * min(now - last, 0.04), now
    clock_s += dt
    heard, heard_joints = target_pose.take(), target_joint.take()
    if heard is not None:
        assert heard.header.frame_id == frame
        turn = rotation_vector_from_quaternion(quaternion_of(heard))
        target = np.concatenate([position_of(heard), turn, target[6:]])
    if heard_joints is not None:
        target = np.array([heard_joints.position[heard_joints.name.index(name)] for name in NAMES])
    dq += dt * (OMEGA * OMEGA * (target - q) - 2.0 * OMEGA * dq)
    q += dt * dq
    if q[0] > WALL_M:
        q[0], dq[0] = WALL_M, 0.0
    shown = q.copy()
    if signal.SIGUSR2 in asked:
        asked.remove(signal.SIGUSR2)
        clock_s -= 100.0
    if signal.SIGUSR1 in asked:
        asked.remove(signal.SIGUSR1)
        shown[0] = np.nan
    joint_states.say(joints(["wrist_camera", *NAMES], [0.0, *shown], [0.0, *dq], stamp_ns=int(clock_s * 1e9)))
    count += 1
    if count % 3 == 0:
        hand.say(joints(["left_finger", "right_finger"], [0.02, 0.02]))
    turn = quaternion_from_rotation_vector(shown[3:6])
    current_pose.say(pose(shown[:3], turn, frame, stamp_ns=int(clock_s * 1e9)))
    wrenches.say(wrench((1.0, 2.0, 3.0), (0.1, 0.2, 0.3), "tcp"))
