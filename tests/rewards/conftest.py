import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lamp_env import CAMERAS

from serl_suite.nodes.environment import Environment
from serl_suite.nodes.reward_recording import record_attempts
from serl_suite.rewards.config import ClassifierConfig
from serl_suite.rewards.frames import read_frames
from serl_suite.rewards.training import Training


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """A folder of 24 episodes of the lamp: 12 good tries and 12 bad ones."""
    folder = tmp_path_factory.mktemp("lamp")
    environment = Environment("lamp_env:Lamp-v0", cameras=CAMERAS)
    kinds = [kind for _, kind in record_attempts(environment, folder, starts=12, noise=0.1, seed=0)]
    environment.close()
    assert len(kinds) == 24
    return folder


@pytest.fixture(scope="session")
def frames(recorded):
    return read_frames([recorded])


@pytest.fixture(scope="session")
def config():
    return ClassifierConfig(epochs=8, hidden=32, target_fpr=0.01)


@pytest.fixture(scope="session")
def trained(frames, config, recorded):
    training = Training(frames, config, [recorded])
    assert [epoch.number for epoch in training.epochs()] == list(range(1, 9))
    return training.finish()


@pytest.fixture
def lamp():
    environment = Environment("lamp_env:Lamp-v0", cameras=CAMERAS)
    yield environment
    environment.close()
