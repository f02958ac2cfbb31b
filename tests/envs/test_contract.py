"""Every registered task against the one contract that nodes, recordings and agents rely on."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import serl_envs
from gymnasium.utils.env_checker import check_env
from serl_envs.env import CAMERAS, InvalidAction, UnknownCamera
from serl_envs.registration import DuplicateTask, register_tasks

ALL_TASKS = sorted(serl_envs.TASKS)


@pytest.fixture(params=ALL_TASKS)
def task_id(request):
    return request.param


@pytest.fixture
def env(task_id):
    env = gymnasium.make(task_id)
    yield env
    env.close()


def _actions(env, seed, n):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (n, *env.action_space.shape)).astype(np.float32)


def _same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_gymnasium_finds_nothing_to_complain_about(task_id):
    check_env(gymnasium.make(task_id).unwrapped, skip_render_check=True)


def test_spaces_and_steps(env):
    assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)
    assert {"tcp_pose", "tcp_twist", "gripper", "wrench"} < set(env.observation_space.keys())
    assert env.metadata["render_fps"] == 10
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert np.abs(observation["tcp_pose"]).max() < 1e-7
    assert info["is_success"] is False
    assert info["stale"] is False
    for action in _actions(env, 0, 30):
        observation, reward, terminated, truncated, info = env.step(action)
        assert env.observation_space.contains(observation)
        assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in observation.values())
        assert reward in (0.0, 1.0)
        assert (reward == 1.0) == terminated == info["is_success"]
        assert not (terminated and truncated)
        if terminated or truncated:
            env.reset()


def test_truncates_at_its_limit_and_not_before(env):
    env.reset(seed=1)
    limit = env.unwrapped.max_steps
    outcomes = [env.step(np.zeros(7, np.float32))[2:4] for _ in range(limit)]
    assert outcomes == [(False, False)] * (limit - 1) + [(False, True)]


def test_expert_ends_it_with_reward_one(env):
    expert = env.unwrapped.make_expert(noise=0.0, seed=0)
    observation, _ = env.reset(seed=2)
    expert.reset()
    total = 0.0
    terminated = truncated = False
    while not (terminated or truncated):
        action = expert.act(observation)
        assert env.action_space.contains(action)
        observation, reward, terminated, truncated, _ = env.step(action)
        total += reward
    assert terminated
    assert not truncated
    assert total == 1.0


def test_same_seed_same_bits_whatever_came_before(task_id):
    def episode(env, seed):
        observations = [env.reset(seed=seed)[0]]
        observations += [env.step(action)[0] for action in _actions(env, seed, 25)]
        return observations

    first, second = gymnasium.make(task_id), gymnasium.make(task_id)
    expected = episode(first, 7)
    episode(second, 8)
    episode(second, 9)
    assert all(_same(a, b) for a, b in zip(expected, episode(second, 7), strict=True))
    assert not _same(expected[0], episode(second, 8)[0])


_DIGEST = """
import hashlib, sys, gymnasium, numpy as np, serl_envs
digest = hashlib.sha256()
for task in sorted(serl_envs.TASKS):
    env = gymnasium.make(task)
    expert = env.unwrapped.make_expert(noise=0.2, seed=3)
    observation, _ = env.reset(seed=5)
    expert.reset()
    for _ in range(15):
        observation, *_ = env.step(expert.act(observation))
        for key in sorted(observation):
            digest.update(observation[key].tobytes())
print(digest.hexdigest())
"""


def test_same_seed_same_bits_in_fresh_processes():
    runs = [
        subprocess.run([sys.executable, "-c", _DIGEST], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert len(runs[0].strip()) == 64
    assert runs[0] == runs[1]


def test_reset_twice_and_close_twice(task_id):
    env = gymnasium.make(task_id)
    env.reset(seed=0)
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    env.close()
    env.unwrapped.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_action_that_is_not_finite_moves_nothing(env, bad):
    env.reset(seed=0)
    before = env.unwrapped.robot.data.qpos.copy()
    action = np.zeros(7, np.float32)
    action[3] = bad
    with pytest.raises(InvalidAction, match="nothing was moved"):
        env.unwrapped.step(action)
    assert np.array_equal(before, env.unwrapped.robot.data.qpos)


def test_render(task_id):
    env = gymnasium.make(task_id, render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (480, 480, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 20
    env.close()


def test_cameras_only_on_request(task_id):
    env = gymnasium.make(task_id, cameras=CAMERAS)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    for camera in CAMERAS:
        assert observation[camera].shape == (128, 128, 3)
        assert observation[camera].std() > 10
    moved = env.step(np.array([1, 1, 0, 0, 0, 0, 0], np.float32))[0]
    assert not np.array_equal(moved["wrist"], observation["wrist"])
    env.close()


def test_unknown_camera_is_named():
    with pytest.raises(UnknownCamera, match=r"'side'.*front, wrist"):
        gymnasium.make("FrankaReach-v0", cameras=("side",))


def test_no_opengl_says_what_to_install(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")  # needs a screen, which tests do not have
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setitem(sys.modules, "mujoco.glfw", None)
    from serl_envs.twins.rendering import RenderingUnavailable

    env = gymnasium.make("FrankaReach-v0", render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(RenderingUnavailable, match="apt-get install libegl1"):
        env.render()


def test_duplicate_id_is_an_error():
    with pytest.raises(DuplicateTask, match="FrankaReach-v0 is registered already"):
        register_tasks({"FrankaReach-v0": "somewhere.else:Reach"})
    register_tasks()  # again, changing nothing


def test_registration_imports_nothing_heavy():
    code = "import sys, serl_envs; print([m for m in ('mujoco', 'numba', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_environment_never_imports_torch():
    code = "import sys, gymnasium, serl_envs; gymnasium.make('FrankaReach-v0').reset(); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"
