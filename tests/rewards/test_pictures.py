"""Pictures that show nothing, or nothing new, are not judged; and a scene at rest is no camera that has stopped."""

import numpy as np
import pytest
from lamp_env import CAMERAS, Lamp

from serl_suite.nodes.environment import Environment
from serl_suite.rewards.pictures import BadPicture, StoppedCamera

RIGHT, NOT = np.ones(1, np.float32), np.zeros(1, np.float32)


@pytest.fixture
def judged(trained, tmp_path):
    """The lamp, judged by a classifier."""
    trained.save(tmp_path / "model.safetensors")
    environment = Environment(
        "lamp_env:Lamp-v0", cameras=CAMERAS, reward=f"classifier:{tmp_path}/model.safetensors"
    )
    environment.reset(seed=1)
    yield environment
    environment.close()


def shown(monkeypatch, **pictures):
    """From now on the cameras show these."""
    looks = Lamp._observation
    monkeypatch.setattr(Lamp, "_observation", lambda lamp: looks(lamp) | pictures)


def test_a_black_picture_is_named(judged, monkeypatch):
    shown(monkeypatch, front=np.full((32, 32, 3), 3, np.uint8))
    with pytest.raises(BadPicture, match="camera front shows black"):
        judged.step(NOT)


def test_a_camera_that_stops_while_the_robot_moves_is_named(judged, monkeypatch):
    observation, *_ = judged.step(NOT)
    shown(monkeypatch, wrist=observation["wrist"])
    for _ in range(8):
        judged.step(0.2 * RIGHT)
    with pytest.raises(StoppedCamera, match=r"camera wrist has shown the same picture for 1\.0 s"):
        judged.step(0.2 * RIGHT)


def test_a_new_episode_is_looked_at_anew(judged, monkeypatch):
    observation, *_ = judged.step(NOT)
    shown(monkeypatch, wrist=observation["wrist"])
    for _ in range(3):
        judged.reset(seed=1)
        for _ in range(8):
            judged.step(0.2 * RIGHT)


def test_a_scene_at_rest_is_no_stopped_camera(judged):
    for _ in range(25):
        judged.step(NOT)


@pytest.mark.parametrize("stale", [False, True])
def test_an_environment_that_tells_stale_pictures_is_believed(judged, monkeypatch, stale):
    """As the twins do: their arm can move where a camera does not see it, and its picture is drawn anew anyway."""
    step = Lamp.step
    monkeypatch.setattr(
        Lamp, "step", lambda lamp, a: (*step(lamp, a)[:4], {"is_success": False, "stale": stale})
    )
    observation, *_ = judged.step(NOT)
    shown(monkeypatch, wrist=observation["wrist"])
    for _ in range(20):
        judged.step(0.2 * RIGHT)
        assert judged.is_stale is stale
