"""Publishes targets that move the arm to and fro, until it is killed."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from graph import Graph, pose

assert os.environ["CYCLONEDDS_URI"]
talker = Graph().talk("PoseStamped", "other/target_pose")
talker.await_listener()
sys.stdout.write("talking\n")
sys.stdout.flush()
while True:
    for side in (-0.04, 0.04):
        for _ in range(50):
            talker.say(pose((0.45, side, 0.35), (1.0, 0.0, 0.0, 0.0)))
            time.sleep(0.01)
