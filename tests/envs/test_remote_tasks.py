"""The tasks over a robot server and a wire twin, unchanged: real processes, real sockets."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import msgspec
import numpy as np
import pytest
import zmq
from serl_envs.remote_scene import OtherScene, RemoteScene, SceneRefused, TwinUnreachable
from serl_envs.rigs import UnfitRig
from serl_envs.robot import RobotFault
from serl_envs.twins.fci.command_line import make_task
from serl_envs.twins.fci.scene_messages import MAGIC

sys.path.insert(0, str(Path(__file__).parent))
from rigged import make_rig, running, server, twin

from serl_suite.wire.robot_client import RobotClient, RobotUnreachable
from serl_suite.wire.robot_messages import Stop

pytest.importorskip("pylibfranka")

PICK = "FrankaPickCube-v0"
SLIP_MS_PER_S = 6
"""Standing still, a millisecond passes with each fifth of a second."""
STILL = np.zeros(7, np.float32)

HOLDER = """
import sys, time, gymnasium, serl_envs, numpy as np
from pathlib import Path
from serl_suite.rig import read_rig
env = gymnasium.make("FrankaPickCube-v0", rig=read_rig(Path(sys.argv[1])))
env.reset(seed=0)
env.step(np.zeros(7, np.float32))
print("stands", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with running(tmp_path_factory.mktemp("lockstep"), PICK) as rig:
        yield rig


@pytest.fixture
def env(rig):
    env = gymnasium.make(PICK, rig=rig)
    yield env
    env.close()


def play(env, seed):
    """An episode of the scripted expert: steps, and whether it succeeded."""
    expert = env.unwrapped.make_expert(noise=0.1, seed=seed)
    observation, _ = env.reset(seed=seed)
    expert.reset()
    steps, terminated, truncated = 0, False, False
    while not (terminated or truncated):
        assert env.observation_space.contains(observation)
        observation, _, terminated, truncated, info = env.step(expert.act(observation))
        steps += 1
    return steps, info["is_success"]


def test_the_expert_picks_the_cube_in_whole_steps_of_robot_time(env):
    for seed in (0, 1):
        arm = env.unwrapped.robot
        env.reset(seed=seed)
        expert = env.unwrapped.make_expert(noise=0.0, seed=seed)
        began, began_s, steps, done = time.monotonic(), arm.arm.time_s, 0, False
        while not done:
            *_, terminated, truncated, info = env.step(expert.act())
            steps, done = steps + 1, terminated or truncated
        assert info["is_success"]
        slipped_ms = 1000 * (arm.arm.time_s - began_s) - 100 * steps
        assert -0.5 < slipped_ms < 1.5 + SLIP_MS_PER_S * (time.monotonic() - began)


def test_a_seed_starts_as_in_this_process(env):
    inside = gymnasium.make(PICK)
    for seed in (3, 4):
        here, there = inside.reset(seed=seed)[0], env.reset(seed=seed)[0]
        assert there["cube"] == pytest.approx(here["cube"], abs=0.02)
        cubes = [e.unwrapped.robot.scene.pose("cube")[0] for e in (inside, env)]
        assert cubes[1][:2] == pytest.approx(cubes[0][:2], abs=2e-3)
    inside.close()


def test_the_same_actions_do_the_same_as_in_this_process(env):
    inside = gymnasium.make(PICK)
    expert = inside.unwrapped.make_expert(noise=0.1, seed=0)
    inside.reset(seed=0)
    env.reset(seed=0)
    expert.reset()
    done = False
    while not done:
        action = expert.act()
        here, _, done, _, _ = inside.step(action)
        there, *_, info = env.step(action)
        assert there["tcp_pose"] == pytest.approx(here["tcp_pose"], abs=0.03)
        assert there["gripper"] == pytest.approx(here["gripper"], abs=0.08)
    assert info["is_success"]
    inside.close()


def test_time_stands_still_while_nobody_steps(env):
    env.reset(seed=0)
    env.step(STILL)
    scene = env.unwrapped.robot.scene
    scene.look()
    began, began_s = time.monotonic(), scene.time_s
    time.sleep(1.2)  # longer than any setpoint lives
    scene.look()
    assert 1000 * (scene.time_s - began_s) < 1.5 + SLIP_MS_PER_S * (time.monotonic() - began)
    assert "fault" not in env.step(STILL)[4]


def test_an_actor_that_dies_lets_time_pass_and_the_arm_be_taken(rig):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, rig.source], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "stands\n"
        client = RobotClient(rig.server, name="observer")
        before = client.await_state().time_s
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 5
        while client.await_state().time_s < before + 1.0:
            assert time.monotonic() < deadline
        assert client.state.fault == "stale_setpoint"  # it was following one
        client.close()
    finally:
        process.kill()
    env = gymnasium.make(PICK, rig=rig)
    env.reset(seed=0)  # recovers, and says so in the server's log
    assert "fault" not in env.step(STILL)[4]
    env.close()


def test_a_fault_ends_the_episode_and_the_next_begins(env, rig):
    env.reset(seed=0)
    operator = RobotClient(rig.server, name="operator")
    operator.ask(Stop(number=operator.next_number(), reason="a test"))
    operator.close()

    *_, terminated, truncated, info = env.step(STILL)
    if not truncated:  # the stop came while time stood still
        *_, terminated, truncated, info = env.step(STILL)
    assert (terminated, truncated, info["fault"]) == (False, True, "stopped")
    env.reset(seed=1)
    assert "fault" not in env.step(STILL)[4]


def test_what_can_not_be_placed_is_refused(env):
    scene = env.unwrapped.robot.scene
    here, upright = np.array([0.5, 0.0, 0.02]), np.array([0.0, 0.0, 0.0, 1.0])
    with pytest.raises(SceneRefused, match=r"no thing 'hand' .* it has .*cube"):
        scene.place("hand", here, upright)
    with pytest.raises(SceneRefused, match="out of the scene"):
        scene.place("cube", np.array([5.0, 0.0, 0.0]), upright)
    with pytest.raises(SceneRefused, match=r"norm 2\.0000"):
        scene.place("cube", here, 2 * upright)
    scene.place("cube", here, upright)
    assert scene.pose("cube")[0] == pytest.approx(here)


@pytest.mark.parametrize("frame", [b"", b"x" * 1000, MAGIC + b"\x81\xa4type\xa5Place", MAGIC + b"\xc1"])
def test_hostile_messages_are_dropped(rig, frame):
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.set(zmq.LINGER, 200)
        socket.connect(rig.scene)
        socket.send(frame)
        socket.send_multipart([frame, frame])
        assert not socket.poll(200)
    scene = RemoteScene(make_task(PICK), PICK, rig.scene)
    scene.look()
    scene.close()


def test_pictures_are_drawn_from_what_the_twin_tells(rig):
    env = gymnasium.make(PICK, rig=rig, cameras=("wrist",), render_mode="rgb_array")
    first = env.reset(seed=0)[0]["wrist"]
    moved = env.step(np.array([1, 1, 0, 0, 0, 0, 0], np.float32))[0]["wrist"]
    assert first.shape == (128, 128, 3)
    assert not np.array_equal(first, moved)
    assert env.render().std() > 20
    env.close()


def test_a_twin_with_another_scene_is_named(rig):
    with pytest.raises(OtherScene, match=r"scene of FrankaPickCube-v0.*--task FrankaReach-v0"):
        gymnasium.make("FrankaReach-v0", rig=rig)


def test_what_does_not_run_is_named_with_the_command_that_starts_it(tmp_path):
    rig = make_rig(tmp_path)
    command = f"serl twin franka --port-ip {rig.arm} --task {PICK} --mode lockstep"
    with pytest.raises(TwinUnreachable, match=command):
        gymnasium.make(PICK, rig=rig)
    with twin(rig, PICK), pytest.raises(RobotUnreachable, match=f"serl robot franka --rig {rig.source}"):
        gymnasium.make(PICK, rig=rig)


def test_the_next_socket_moves_only_once_the_tool_is_out_of_the_last(tmp_path):
    task = "FrankaPegInsert-v0"
    with running(tmp_path, task) as rig:
        env = gymnasium.make(task, rig=rig)
        assert [play(env, seed)[1] for seed in (0, 1)] == [True, True]
        env.close()


def test_in_real_time(tmp_path):
    task = "FrankaReach-v0"
    rig = make_rig(tmp_path, "realtime")
    with twin(rig, task), server(rig):
        with pytest.raises(UnfitRig, match=r"runs in real time.*--mode lockstep"):
            gymnasium.make(task, rig=msgspec.structs.replace(rig, pace="lockstep"))
        env = gymnasium.make(task, rig=rig)
        env.reset(seed=0)
        began = time.monotonic()
        steps, success = play(env, 1)
        env.close()
        assert success
        assert time.monotonic() - began > 0.1 * steps
        check_as_metal(msgspec.structs.replace(rig, scene=None), task)


def check_as_metal(rig, task):
    """Without the twin's scene, a task of marks alone goes on, and what stops the arm is for people to clear."""
    env = gymnasium.make(task, rig=rig, render_mode="rgb_array")
    assert play(env, 2)[1]
    assert env.render().std() > 20
    operator = RobotClient(rig.server, name="operator")
    operator.ask(Stop(number=operator.next_number(), reason="a test"))
    while not operator.await_state().fault:
        pass
    operator.close()
    with pytest.raises(RobotFault, match=r"stopped by.*recover"):
        env.reset(seed=3)
    env.close()
