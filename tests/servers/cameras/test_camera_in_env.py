"""A rig's cameras as an environment's images, on a wire twin: all processes are real, and are killed or stopped."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from seen import RATE_HZ, await_fault, film, free_port, processes, serving, watching
from serl_envs.remote_arm import RemoteArm
from serl_envs.remote_scene import RemoteScene
from serl_envs.robot import RobotFault
from serl_envs.twins.fci.command_line import make_task
from serl_envs.twins.rendering import Painter

sys.path.insert(0, str(Path(__file__).parents[2] / "envs"))
from rigged import make_rig, server, twin

pytest.importorskip("pylibfranka")
pytestmark = pytest.mark.slow

TASK = "FrankaReach-v0"
STILL = np.zeros(7, np.float32)


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cameras")
    serial = film(folder / "wrist.mkv", ("lively", 120.0), width=160, height=128)
    cameras = [
        {"name": "front", "driver": "twin", "serial": "front", "width": 128, "height": 128, "rate_hz": 15},
        {
            "name": "wrist",
            "driver": "v4l2",
            "serial": serial,
            "width": 160,
            "height": 128,
            "rate_hz": RATE_HZ,
        },
    ]
    address = f"tcp://127.0.0.1:{free_port()}"
    rig = make_rig(folder, "realtime", cameras=cameras, camera_server=address, reflex_force_n=100.0)
    with twin(rig, TASK), server(rig):
        yield rig


def make_env(rig):
    return gymnasium.make(TASK, rig=rig, cameras=("front", "wrist")).unwrapped


def await_sight(rig):
    """Until both see: a server that has just been started takes a while, most of all on a busy machine."""
    with watching(rig) as client:
        for name in ("front", "wrist"):
            await_fault(client, name, "", within_s=60)


def wrist_process(rig):
    return processes(*(camera.serial for camera in rig.cameras))["wrist"]


def play(env, steps):
    """Steps until the episode is over; the last step."""
    for _ in range(steps):
        step = env.step(STILL)
        if step[2] or step[3]:
            break
    return step


def test_a_camera_that_stalls_ends_the_episode_and_the_next_waits_for_it(rig):
    env = make_env(rig)
    try:
        with serving(rig):
            await_sight(rig)
            observation, _ = env.reset(seed=0)
            assert env.observation_space.contains(observation)
            painter = Painter(env.robot.scene.model)
            drawn = painter.picture(env.robot.scene.data, "front", 128, shadows=False)
            painter.close()
            assert np.abs(observation["front"].astype(int) - drawn).mean() < 6, "what the twin looks like"
            step = play(env, 5)
            assert "fault" not in step[4]
            assert max(env.robot.cameras.ages_s.values()) < 0.3
            assert env.robot.cameras.skew_s < 0.2

            pid = wrist_process(rig)
            os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            observation, _, terminated, truncated, info = play(env, 20)
            assert (terminated, truncated) == (False, True)
            assert info["fault"] == "camera_wrist_stalled"
            assert time.monotonic() - began < 1.5
            assert env.observation_space.contains(observation)
            threading.Timer(1.0, os.kill, (pid, signal.SIGCONT)).start()
            time.sleep(1.5)
            assert env.step(STILL)[4]["fault"] == "camera_wrist_stalled", "it is latched"
            assert env.robot.arm.controller is None, "the arm was let go of, and holds"

            os.kill(wrist_process(rig), signal.SIGKILL)
            env.reset(seed=1)  # waits until it has been opened again
            assert "fault" not in play(env, 5)[4]
        info = play(env, 20)[4]
        assert info["fault"] == "camera_front_server_silent"
        with serving(rig):
            await_sight(rig)
            env.reset(seed=2)
            assert "fault" not in play(env, 3)[4]
    finally:
        env.close()


def test_no_server_or_another_rigs_is_named_before_anything_is_learned(rig):
    env = make_env(rig)
    try:
        with pytest.raises(RobotFault, match=f"start it: serl camera serve --rig {rig.source}"):
            env.reset(seed=0)
        with serving(rig):
            env.robot.cameras.names = ("front", "wrist", "side")
            with pytest.raises(
                RobotFault, match="has no side but front, wrist; it was started with another rig"
            ):
                env.reset(seed=0)
            env.robot.cameras.names = ("front",)
            with pytest.raises(RobotFault, match="has no camera wrist but front; correct the rig"):
                env.reset(seed=0)
            env.robot.cameras.names = ("front", "wrist")
            await_sight(rig)
            with pytest.raises(RobotFault, match="served as 128x128, and 200x200 is observed; set its size"):
                env.robot.picture("front", 200)
            assert env.robot.picture("front", 64).shape == (64, 64, 3)
    finally:
        env.close()


def test_an_arm_of_metal_without_cameras_shows_no_drawing_for_a_picture(rig):
    task = make_task(TASK)
    scene = RemoteScene(task, TASK, rig.scene)
    drawn = type("Marks", (), {"model": scene.model, "data": scene.data})()
    arm = RemoteArm(drawn, rig.server)
    try:
        with pytest.raises(RobotFault, match="the rig lists no cameras, and wrist is to be observed"):
            arm.picture("wrist", 64)
        assert arm.picture("view", 64).shape == (64, 64, 3)
    finally:
        arm.stop()
        scene.close()
