"""What a client's silence means to an arm in real time: a twin in lockstep would be at its goal before it counts."""

import contextlib
import time

import numpy as np
import pytest

pytest.importorskip("pylibfranka")
pytest.importorskip("cyclonedds")

from bridge import NAMES, READY, bridging, stream
from graph import Graph, joints
from rig import running

from serl_suite.wire.robot_client import RobotClient, RobotRefused
from serl_suite.wire.robot_messages import ResetJoints


def test_a_joint_target_that_is_published_no_more_is_let_go(tmp_path):
    graph = Graph()
    faults = graph.listen("DiagnosticArray", "faults")
    with (
        running(tmp_path, "127.0.8.1", twin=("--mode", "realtime")) as rig,
        bridging(rig),
        contextlib.closing(RobotClient(rig.address, name="test")) as arm,
    ):
        arm.keep_control()
        with contextlib.suppress(RobotRefused):  # near is near enough
            arm.ask(ResetJoints(number=arm.next_number(), q=(-0.6, *READY[1:6], -2.0)), 40.0)
        arm.release()
        far = (0.6, *READY[1:6], 2.2)  # seconds away, and control lasts for one in silence
        with graph.talk("JointState", "target_joint") as talker:
            stream(talker, lambda: joints(NAMES, far), 5.0, lambda: np.abs(arm.await_state().dq).max() > 0.1)
            # it hangs: still there, and silent
            faults.hear(lambda m: "the client that asked has lost control" in m.status[0].message)
        time.sleep(0.5)
        held = np.array(arm.await_state().position)
        time.sleep(0.5)
        assert np.abs(np.array(arm.await_state().position) - held).max() < 5e-3
        assert np.abs(np.array(arm.state.q) - far).max() > 0.3, "it was let go on the way"
        assert arm.state.fault == ""
