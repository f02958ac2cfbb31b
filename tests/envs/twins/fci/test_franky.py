"""Unmodified franky: a second, independent client library, whose control loop is in C++."""

import subprocess
import sys
import textwrap
from importlib.util import find_spec

import pytest

# Not imported here: two libraries on libfranka do not go into one process.
pytestmark = pytest.mark.skipif(find_spec("franky") is None, reason="no franky-control for this machine")

SCRIPT = textwrap.dedent(
    """
    import sys
    import franky

    robot = franky.Robot(sys.argv[1], realtime_config=franky.RealtimeConfig.Ignore)
    robot.relative_dynamics_factor = 0.3
    start = robot.current_joint_state.position
    robot.move(franky.JointMotion([start[0] + 0.2, *start[1:]]))
    turned = robot.current_joint_state.position - start
    height = robot.current_pose.end_effector_pose.translation[2]
    robot.move(franky.CartesianMotion(franky.Affine([0, 0, -0.05]), franky.ReferenceType.Relative))
    lifted = robot.current_pose.end_effector_pose.translation[2] - height
    gripper = franky.Gripper(sys.argv[1])
    moved = gripper.move(0.04, 0.1)
    print(turned[0], abs(turned[1:]).max(), lifted, moved, gripper.width)
    """
)


def test_joint_and_cartesian_motion_and_gripper(fresh_twin):
    command = [sys.executable, "-c", SCRIPT, fresh_twin.address]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    turned, others, lifted, moved, width = result.stdout.split()
    assert float(turned) == pytest.approx(0.2, abs=1e-3)
    assert float(others) < 1e-3
    assert float(lifted) == pytest.approx(0.05, abs=2e-3)
    assert moved == "True"
    assert float(width) == pytest.approx(0.04, abs=1e-3)
