"""A real actor on a toy task, against the learner's end of the wire in the hands of the test."""

import threading
import time

import gymnasium
import msgspec
import numpy as np
import pytest

from serl_suite.agents.registry import describe, make_agent
from serl_suite.agents.rlpd import RLPDConfig
from serl_suite.data.journal import Journal
from serl_suite.nodes import actor as actor_module
from serl_suite.nodes.actor import Actor, SettingsDiffer
from serl_suite.nodes.config import ActorConfig, ActorSettings, EvaluationConfig, TrainConfig
from serl_suite.nodes.environment import Environment, EnvironmentFailure
from serl_suite.nodes.ingest import Ingest
from serl_suite.nodes.metrics import read_metrics
from serl_suite.wire.client import ActorClient, LearnerUnreachable
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import BadStep
from serl_suite.wire.spool import SpoolError

AGENT = RLPDConfig(num_critics=2, hidden=(16,), batch_size=16)
BLOCK = 5
NOWHERE = "tcp://127.0.0.1:9"
WHATS = ("nothing", "observation", "reward", "camera")


class Diverging(gymnasium.Env):
    """Its observation or its reward turns into NaN at the third step, or a camera fails then; its actions reach from -2
    to 6."""

    metadata = {"render_modes": [], "render_fps": 50}  # noqa: RUF012

    def __init__(self, what="nothing", render_mode=None):
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-2.0, 6.0, (1,), np.float32)
        self._what, self.actions = what, []

    def reset(self, *, seed=None, options=None):
        self._steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.actions.append(float(action[0]))
        self._steps += 1
        bad = np.nan if self._steps == 3 else 0.0
        observation = np.full(2, bad if self._what == "observation" else 0.0, np.float32)
        blind = self._what == "camera" and self._steps == 3
        return (
            observation,
            bad if self._what == "reward" else 0.0,
            False,
            blind or self._steps == 10,
            {"fault": "camera_wrist_stalled", "stale": True} if blind else {},
        )


class LearnerEnd:
    """An ingest that hands out the policies that the test makes."""

    def __init__(self, folder, task, *, random_steps=0, pace="lockstep", evaluation=None):
        environment = Environment(task)
        self.arrays = make_agent("rlpd", AGENT, environment.spec, seed=0).policy_state()
        environment.close()
        self.journal = Journal(folder)
        self.ingest = Ingest("tcp://127.0.0.1:0", self.journal, "run")
        settings = ActorSettings(
            policy=describe("rlpd", AGENT),
            random_steps=random_steps,
            obs="state",
            reward="task",
            pace=pace,
            block_steps=BLOCK,
            most_owed=1000.0,
            evaluation=evaluation or EvaluationConfig(),
        )
        self.ingest.set_agent(msgspec.to_builtins(settings))
        self.steps = []

    def take(self, transitions, timeout_s=20.0):
        """Waits until so many transitions have come in all."""
        deadline = time.monotonic() + timeout_s
        while sum(step.index > 0 for step in self.steps) < transitions:
            assert time.monotonic() < deadline
            self.ingest.wait(0.05)
            self.steps += [step for _, step in self.ingest.drain()]

    def reopen(self):
        """After `ingest.close`, at the same address."""
        agent = self.ingest._reception.agent
        self.ingest = Ingest(self.ingest.address, self.journal, "run")
        self.ingest.set_agent(agent)

    def close(self):
        self.ingest.close()
        self.journal.close()


@pytest.fixture
def diverging_tasks(toy_tasks):
    names = [f"Diverging{what.title()}-v0" for what in WHATS]
    for name, what in zip(names, WHATS, strict=True):
        gymnasium.register(name, entry_point=Diverging, kwargs={"what": what}, disable_env_checker=True)
    yield
    for name in names:
        del gymnasium.registry[name]


@pytest.fixture
def make_end(tmp_path, diverging_tasks):
    ends = []

    def make(task="Toy-v0", **options):
        ends.append(LearnerEnd(tmp_path / f"run{len(ends)}", task, **options))
        return ends[-1]

    yield make
    for end in ends:
        end.close()


@pytest.fixture
def start(tmp_path):
    """Starts an actor in a thread: returns it, its `stop`, and where its result or error will be."""
    running = []

    def make(address, task="Toy-v0", *, pace="lockstep"):
        config = TrainConfig(task=task, actor=ActorConfig(pace=pace))
        actor = Actor(config, address=address, spool=tmp_path / "spool", metrics=tmp_path / "metrics")
        stop, results = threading.Event(), []

        def run():
            try:
                results.append(actor.run(stop))
            except Exception as error:  # noqa: BLE001  # shown to the test
                results.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        running.append((stop, thread))
        return actor, stop, results, thread

    yield make
    for stop, thread in running:
        stop.set()
        thread.join(20)


def test_an_unreachable_learner_is_named_with_a_remedy(toy_tasks, start, monkeypatch):
    monkeypatch.setattr(actor_module, "CONNECT_TIMEOUT_S", 0.3)
    *_, results, thread = start(NOWHERE)
    thread.join(10)
    assert isinstance(results[0], LearnerUnreachable)
    assert "tcp://127.0.0.1:9 within 0.3 s: nothing listens there" in str(results[0])
    assert "`serl learner Toy-v0" in str(results[0])


def test_another_pace_than_the_learners_is_refused_with_a_remedy(make_end, start):
    end = make_end(pace="realtime")
    end.ingest.publish(0, end.arrays)
    *_, results, thread = start(end.ingest.address)
    thread.join(10)
    assert isinstance(results[0], SettingsDiffer)
    assert "--actor.pace realtime" in str(results[0])


def test_a_stop_ends_the_waiting_for_a_learner_at_once(toy_tasks, start):
    _, stop, results, thread = start(NOWHERE)
    time.sleep(0.3)
    stop.set()
    asked = time.monotonic()
    thread.join(10)
    assert time.monotonic() - asked < 1.8
    assert results == ["stopped"]


def test_lockstep_acts_on_each_block_with_the_policy_that_learnt_from_the_one_before_the_last(
    make_end, start
):
    end = make_end()
    end.ingest.publish(0, end.arrays)
    _, stop, _, thread = start(end.ingest.address)
    for block in range(1, 7):
        end.take(BLOCK * (block + 1))  # it works on block + 1 while the learner pays for block
        time.sleep(0.1)
        end.take(BLOCK * (block + 1))
        assert sum(step.index > 0 for step in end.steps) == BLOCK * (block + 1)  # and no further
        end.ingest.publish(block, end.arrays)
    stop.set()
    thread.join(20)
    versions = [step.policy_version for step in end.steps if step.index > 0]
    assert versions[: 7 * BLOCK] == [max(0, k // BLOCK - 1) for k in range(7 * BLOCK)]


def test_a_step_in_which_a_camera_failed_is_left_out_and_ends_the_episode(make_end, start):
    end = make_end("DivergingCamera-v0")
    end.ingest.publish(0, end.arrays)
    _, stop, _, thread = start(end.ingest.address, "DivergingCamera-v0")
    end.take(2 * BLOCK)
    stop.set()
    thread.join(20)
    assert [(step.episode, step.index) for step in end.steps[:9]] == [
        (e, i) for e in range(3) for i in range(3)
    ]
    assert [step.seq for step in end.steps] == list(range(len(end.steps)))
    assert not any(step.ends_episode for step in end.steps)


def test_real_time_keeps_its_rate_and_takes_the_newest_policy_mid_episode(make_end, start):
    end = make_end("DivergingNothing-v0", pace="realtime")
    end.ingest.publish(0, end.arrays)
    _, stop, _, thread = start(end.ingest.address, "DivergingNothing-v0", pace="realtime")
    end.take(20)
    began = time.monotonic()
    for version in (3, 5, 9):
        end.ingest.publish(version, end.arrays)
        end.take(sum(step.index > 0 for step in end.steps) + 15)
    elapsed = time.monotonic() - began
    stop.set()
    thread.join(20)
    assert elapsed > 45 / 50 - 0.1  # 50 Hz
    versions = [step.policy_version for step in end.steps]
    assert versions == sorted(versions)
    assert {0, 3, 5, 9} == set(versions)
    inside = [
        b.index > 0
        for a, b in zip(end.steps, end.steps[1:], strict=False)
        if a.policy_version != b.policy_version
    ]
    assert any(inside)


def test_actions_have_the_units_of_the_environment(make_end, start):
    end = make_end("DivergingNothing-v0", random_steps=60, pace="realtime")
    end.ingest.publish(0, end.arrays)
    start(end.ingest.address, "DivergingNothing-v0", pace="realtime")
    end.take(60)
    actions = np.array([step.action[0] for step in end.steps if step.index > 0])
    assert actions.min() < -1.0
    assert actions.max() > 5.0
    assert np.all((actions >= -2.0) & (actions <= 6.0))


@pytest.mark.parametrize("what", ["observation", "reward"])
def test_what_is_not_finite_ends_the_actor_and_keeps_what_came_before(make_end, start, what):
    task = f"Diverging{what.title()}-v0"
    end = make_end(task, pace="realtime")
    end.ingest.publish(0, end.arrays)
    *_, results, thread = start(end.ingest.address, task, pace="realtime")
    end.take(2)
    thread.join(20)
    assert isinstance(results[0], BadStep)
    assert "index 3" in str(results[0])
    assert what in str(results[0])
    assert [step.index for step in end.steps] == [0, 1, 2]


def test_a_policy_that_is_not_finite_moves_nothing(make_end, start):
    end = make_end("DivergingNothing-v0")
    end.ingest.publish(0, {name: np.full_like(array, np.nan) for name, array in end.arrays.items()})
    actor, _, results, thread = start(end.ingest.address, "DivergingNothing-v0")
    thread.join(20)
    assert isinstance(results[0], EnvironmentFailure)
    assert "policy has diverged" in str(results[0])
    assert actor._environment.env.unwrapped.actions == []


def test_an_actor_that_joins_later_counts_on_from_the_run(make_end, start, tmp_path):
    end = make_end(random_steps=100)
    end.ingest.set_progress(480, 0.0)
    end.ingest.publish(0, end.arrays)
    actor, *_ = start(end.ingest.address)
    end.take(2 * BLOCK)
    deadline = time.monotonic() + 5  # the learner's end may have a step before its actor has counted it
    while actor.env_steps < 480 + 2 * BLOCK and time.monotonic() < deadline:
        time.sleep(0.01)
    assert actor.env_steps == 480 + 2 * BLOCK
    firsts = [step.observation["x"].tolist() for step in end.steps if step.index == 0]
    other_end = make_end(random_steps=100)
    other_end.ingest.publish(0, other_end.arrays)
    start(other_end.ingest.address)
    other_end.take(2 * BLOCK)
    assert firsts[0] != other_end.steps[0].observation["x"].tolist()  # no episode of the run comes twice


def test_episodes_that_succeed_lead_to_an_evaluation_that_reaches_the_learner(make_end, start, tmp_path):
    evaluation = EvaluationConfig(window=2, attempt_at=0.0, attempt_every=1, attempt_episodes=4)
    end = make_end(evaluation=evaluation)
    end.ingest.publish(0, end.arrays)
    start(end.ingest.address)
    deadline, evaluations, version = time.monotonic() + 20, [], 0
    while not evaluations and time.monotonic() < deadline:
        version += 1
        end.ingest.publish(version, end.arrays)
        time.sleep(0.05)
        evaluations = end.ingest.take_evaluations()
    assert len(evaluations[0].episodes) == 4
    assert all(np.array_equal(evaluations[0].arrays[name], array) for name, array in end.arrays.items())
    records = read_metrics(tmp_path / "metrics" / "actor.jsonl")
    rate = sum(episode.success for episode in evaluations[0].episodes) / 4
    assert rate in [record.get("evaluation/success_rate") for record in records]


def test_the_learners_end_of_training_ends_the_actor_with_its_reason(make_end, start):
    end = make_end()
    end.ingest.publish(0, end.arrays)
    *_, results, thread = start(end.ingest.address)
    end.take(2 * BLOCK)
    end.ingest.broadcast_stop("the budget is spent")
    thread.join(20)
    assert results == ["the budget is spent"]


def test_an_actor_that_inherits_the_steps_of_a_killed_one_still_gets_its_policy(make_end, start, tmp_path):
    environment = Environment("Toy-v0")
    killed = ActorClient(NOWHERE, "killed", environment.spec, tmp_path / "spool")
    killed.put(Step(seq=0, episode=0, index=0, observation=environment.reset(seed=0)))
    environment.close()
    killed.close()
    end = make_end()
    end.ingest.set_progress(0, 0.0)
    start(end.ingest.address)
    deadline = time.monotonic() + 20
    while (tmp_path / "spool" / "killed").exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # its steps are sent, and its session ended, while the learner has no policy yet
    time.sleep(0.3)
    end.ingest.publish(0, end.arrays)
    end.take(BLOCK)
    assert end.steps[0].index == 0


def test_what_ends_the_connection_for_good_ends_the_actor(make_end, start, tmp_path):
    """Its spool was damaged while the learner was away: what is in it can never be sent."""
    end = make_end("DivergingNothing-v0", pace="realtime")
    end.ingest.publish(0, end.arrays)
    *_, results, thread = start(end.ingest.address, "DivergingNothing-v0", pace="realtime")
    end.take(10)
    end.ingest.close()
    (session,) = (path for path in (tmp_path / "spool").iterdir() if path.is_dir())
    time.sleep(1.0)  # steps gather
    for path in session.glob("steps-*.log"):
        with path.open("r+b") as file:  # the actor has it in its memory: it must not become shorter
            file.write(bytes(path.stat().st_size))
    end.reopen()
    thread.join(20)
    assert isinstance(results[0], SpoolError)
    assert "cannot be sent again" in str(results[0])
