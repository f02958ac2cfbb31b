"""The cube is put back where a task wants it, by the server alone; where it is, the twin tells."""

import contextlib

import numpy as np
import pytest
from rig import running

pytest.importorskip("pylibfranka")

from serl_envs.remote_scene import RemoteScene
from serl_envs.tasks.pick_cube import PickCube
from serl_servers.franka.command_line import run
from serl_servers.franka.operator_client import WrongApproach

from serl_suite.wire.robot_client import RobotClient, RobotRefused
from serl_suite.wire.robot_messages import HomeGripper, MoveGripper, PickUp, PutDown, Reset

IP, TASK = "127.0.7.15", "FrankaPickCube-v0"
DOWN = (1.0, 0.0, 0.0, 0.0)
HEIGHT_M = 0.02
START, GOAL = (0.5, -0.05), (0.45, 0.1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Client of a server in front of a twin with a cube on the table, and what the twin sees."""
    with (
        running(tmp_path_factory.mktemp("rig"), IP, twin=("--mode", "lockstep", "--task", TASK)) as rig,
        contextlib.closing(RobotClient(rig.address, name="test")) as client,
        contextlib.closing(RemoteScene(PickCube(), TASK, f"tcp://{IP}:1339")) as scene,
    ):
        yield client, scene


def ask(client, kind, *where, **options):
    if where:
        options |= {"position": (*where, HEIGHT_M), "quaternion": DOWN}
    client.keep_control()
    client.ask(kind(number=client.next_number(), **options), 60.0)


def cube(scene):
    scene.look()
    return scene.pose("cube")[0]


def test_an_object_reset_there_and_back(bench):
    client, scene = bench
    scene.place("cube", np.array([*START, HEIGHT_M]), np.array([0.0, 0.0, 0.0, 1.0]))
    ask(client, HomeGripper)
    assert client.await_state().gripper_width == pytest.approx(0.08, abs=1e-3)
    for here, there in ((START, GOAL), (GOAL, START)):
        ask(client, PickUp, *here)
        assert cube(scene)[2] > HEIGHT_M + 0.08
        assert client.await_state().gripper_width == pytest.approx(0.04, abs=2e-3)
        ask(client, PutDown, *there)
        assert np.abs(cube(scene) - (*there, HEIGHT_M)).max() < 0.005
        assert client.await_state().gripper_width == pytest.approx(0.08, abs=3e-3)


def test_what_is_not_there_is_not_picked_up(bench):
    client, scene = bench
    before = cube(scene)
    with pytest.raises(RobotRefused, match="nothing was between the fingers"):
        ask(client, PickUp, 0.55, 0.1)
    with pytest.raises(RobotRefused, match="nothing between the fingers to put down"):
        ask(client, PutDown, 0.55, 0.1)
    with pytest.raises(RobotRefused, match="workspace box"):
        ask(client, PickUp, 0.55, 0.6)
    with pytest.raises(RobotRefused, match="a grasping force of 500"):
        ask(client, PickUp, 0.55, 0.1, force_n=500.0)
    ask(client, MoveGripper, width=0.08)
    assert np.abs(cube(scene) - before).max() < 1e-3
    assert client.await_state().fault == ""


def test_an_operator_does_so_from_a_terminal(bench, capsys):
    client, scene = bench
    scene.place("cube", np.array([*START, HEIGHT_M]), np.array([0.0, 0.0, 0.0, 1.0]))
    client.keep_control()
    above = (*START, 0.2)
    client.ask(Reset(number=client.next_number(), position=above, quaternion=DOWN), 60.0)
    client.release()
    there, at = (
        ["--address", client.address],
        lambda x, y: ["--x", str(x), "--y", str(y), "--z", str(HEIGHT_M)],
    )
    assert run(["home", *there]) == 0
    assert "opens 80.0 mm" in capsys.readouterr().out
    assert run(["pick", *at(*START), "--force", "40", *there]) == 0
    assert float(capsys.readouterr().out.split()[-3]) == pytest.approx(40.0, abs=2.0)
    assert cube(scene)[2] > HEIGHT_M + 0.08
    assert run(["put", *at(*GOAL), "--approach", "0.05", *there]) == 0
    assert np.abs(cube(scene) - (*GOAL, HEIGHT_M)).max() < 0.005
    with pytest.raises(RobotRefused, match="nothing between the fingers to put down"):
        run(["put", *at(*GOAL), *there])
    with pytest.raises(WrongApproach, match="Nothing was moved"):
        run(["pick", *at(*GOAL), "--approach", "-0.1", *there])
