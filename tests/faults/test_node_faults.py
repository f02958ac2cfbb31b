"""Learner and actor processes under the supervisor, killed and frozen at random moments while they train."""

import os
import signal
import sys
import time
from pathlib import Path
from threading import Event

import msgspec
import numpy as np
import pytest

from serl_suite.agents.rlpd import RLPDConfig
from serl_suite.data.journal import Journal
from serl_suite.nodes.config import ActorConfig, LearnerConfig, TrainConfig
from serl_suite.nodes.run_folder import RunFolder
from serl_suite.nodes.supervisor import NodeFailed, Supervisor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from ground_truth import compare, periods, read_log  # noqa: E402

CONFIG = TrainConfig(
    task="counted_env:Counted-v0",
    demos="none",
    agent=RLPDConfig(num_critics=2, hidden=(16,), utd=1.0, batch_size=16),
    learner=LearnerConfig(warmup_steps=20, checkpoint_every=40, publish_every=5),
)


class Training:
    """A run of the counted task, with its own record of what happened."""

    def __init__(self, folder, **changes):
        self.log = folder / "truth.log"
        os.environ["COUNTED_LOG"] = str(self.log)
        self.run = RunFolder.create(folder / "run", msgspec.structs.replace(CONFIG, **changes))
        self.stop = Event()

    def train(self, on_tick=lambda supervisor: None, actors=1):
        supervisor = Supervisor(self.run, actors=actors)
        return supervisor.train(self.stop, lambda: on_tick(supervisor))

    def compare(self):
        return compare(self.run.path, self.log)


@pytest.fixture
def make_training(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("COUNTED_LOG", "")
    return lambda **changes: Training(tmp_path, **changes)


class Killer:
    """Called ten times a second: kills a random node after a random number of further steps, some at once."""

    def __init__(self, training, kills, seed):
        self.training, self.left = training, kills
        self._rng = np.random.default_rng(seed)
        self._names = ["learner", "actor"]
        self._due = 30

    def __call__(self, supervisor):
        if self.left and len(read_log(self.training.log)) >= self._due:
            time.sleep(self._rng.uniform(0.0, 0.1))
            name = self._names[self.left % 2] if self.left < 3 else self._rng.choice(self._names)
            os.kill(supervisor.pids[name], signal.SIGKILL)
            self._due = len(read_log(self.training.log)) + self._rng.integers(0, 60)
            self.left -= 1


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_killed_nodes_are_started_again_and_nothing_is_lost_or_doubled(make_training, kills):
    training = make_training(max_steps=100 + 65 * kills)
    killer = Killer(training, kills, seed=kills)
    outcome = training.train(killer)
    assert killer.left == 0
    assert outcome is not None
    assert outcome.env_steps >= training.run.config.max_steps
    found = training.compare()
    assert found.promised > training.run.config.max_steps
    assert (found.lost, found.duplicated) == (0, 0)
    assert found.unasked <= found.lives
    assert found.lives >= 2


@pytest.mark.parametrize(
    ("frozen_s", "quantile"), [(5, 0.95), pytest.param(60, 0.99, marks=pytest.mark.slow)]
)
def test_a_frozen_learner_does_not_move_a_paced_actor(make_training, frozen_s, quantile):
    steps = 20 * frozen_s
    training = make_training(max_steps=3 * steps, actor=ActorConfig(pace="realtime"))
    marks = []

    def freeze_and_thaw(supervisor):
        count = len(read_log(training.log))
        if not marks and count >= steps:
            os.kill(supervisor.pids["learner"], signal.SIGSTOP)
            marks.extend([count, time.monotonic()])
        elif len(marks) == 2 and time.monotonic() > marks[1] + frozen_s:
            marks.append(count)
            os.kill(supervisor.pids["learner"], signal.SIGCONT)

    outcome = training.train(freeze_and_thaw)
    first, _, last = marks
    frames = read_log(training.log)
    assert last - first >= 0.9 * steps
    calm, frozen = periods(frames[5:first]), periods(frames[first:last])
    assert np.quantile(frozen, quantile) <= 1.05 * max(np.quantile(calm, quantile), 0.05)
    found = training.compare()
    assert (found.lost, found.duplicated, found.lives) == (0, 0, 1)
    assert outcome is not None
    assert outcome.env_steps >= 3 * steps > last  # the steps of the freeze were learnt from as well


def test_three_actors_feed_one_learner(make_training):
    training = make_training(max_steps=400)
    outcome = training.train(actors=3)
    found = training.compare()
    assert (found.lost, found.duplicated, found.lives) == (0, 0, 3)
    assert outcome is not None
    assert outcome.env_steps >= 400
    lives = np.array([frame.life for frame in read_log(training.log)])
    assert min(np.unique(lives, return_counts=True)[1]) > 30  # none was starved


def test_three_actors_wait_for_a_learner_that_is_slower_than_they_are(make_training):
    """In lockstep each of them would take a block for each policy, and two of three blocks would only pile up."""
    training = make_training(max_steps=300, agent=msgspec.structs.replace(CONFIG.agent, utd=20.0))
    assert training.train(actors=3) is not None
    journal = Journal(training.run.path)
    transitions = sum(step.index > 0 for _, step in journal.recover())
    journal.close()
    block = training.run.config.actor.block_steps
    owed, unheard = (
        2 * block,
        3 * 2 * block,
    )  # they wait for more; the last two of each may not be counted yet
    assert 300 <= transitions <= 300 + owed + unheard


class Terminator:
    """Ends a node from outside, as an administrator does, once training is on its way."""

    def __init__(self, training, name):
        self.training, self.name, self.pid = training, name, None

    def __call__(self, supervisor):
        if self.pid is None and len(read_log(self.training.log)) >= 60:
            self.pid = supervisor.pids[self.name]
            os.kill(self.pid, signal.SIGTERM)


def test_an_actor_that_is_ended_from_outside_is_started_again(make_training):
    training = make_training(max_steps=200)
    terminator = Terminator(training, "actor")
    outcome = training.train(terminator)
    assert terminator.pid is not None
    assert outcome is not None
    assert outcome.env_steps >= 200
    found = training.compare()
    assert (found.lost, found.duplicated, found.lives) == (0, 0, 2)


def test_a_learner_that_is_ended_from_outside_ends_the_run_with_a_remedy(make_training):
    training = make_training(max_steps=2000)
    terminator = Terminator(training, "learner")
    with pytest.raises(
        NodeFailed, match="the learner was ended from outside; data is kept, go on with `serl tra"
    ):
        training.train(terminator)
    assert terminator.pid is not None
    assert not training.run.outcome.exists()
    found = training.compare()
    assert (found.lost, found.duplicated) == (0, 0)
