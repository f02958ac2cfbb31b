"""A real learner with real clients that feed it steps made beforehand."""

import secrets
import socket
import subprocess
import sys
import threading
import time

import msgspec
import numpy as np
import pytest
import zmq

from serl_suite.agents.errors import BadAgent
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.data.checkpoint import BadCheckpoint, load_checkpoint
from serl_suite.data.episodes import read_dataset
from serl_suite.data.journal import Journal
from serl_suite.networks.host import DeviceUnavailable
from serl_suite.nodes import learner as learner_module
from serl_suite.nodes.config import ActorConfig, LearnerConfig, TrainConfig
from serl_suite.nodes.learner import Learner
from serl_suite.nodes.metrics import read_metrics
from serl_suite.nodes.outcome import Outcome
from serl_suite.nodes.run_folder import RunFolder
from serl_suite.wire.client import ActorClient, SpecRefused
from serl_suite.wire.codec import Codec
from serl_suite.wire.messages import EpisodeOutcome, Hello, Step, Steps
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SPEC = EnvSpec(
    task="T",
    observation={"state": ArraySpec(shape=(3,), dtype="float32")},
    action=ArraySpec(shape=(2,), dtype="float32", low=-1.0, high=1.0),
)
LENGTH = 9
AGENT = RLPDConfig(num_critics=2, hidden=(16,), batch_size=16, utd=5.0, discount=0.9)


def make_steps(transitions, seed=0, interventions=False):
    """Whole episodes of `LENGTH` transitions, and a part of one."""
    rng = np.random.default_rng(seed)
    steps = []
    while transitions > 0:
        episode, index = divmod(len(steps), LENGTH + 1)
        steps.append(
            Step(
                seq=len(steps),
                episode=episode,
                index=index,
                observation={"state": rng.normal(size=3).astype(np.float32)},
                action=rng.uniform(-1, 1, 2).astype(np.float32) if index else None,
                reward=float(rng.normal()),
                terminated=index == LENGTH and episode % 2 == 0,
                truncated=index == LENGTH and episode % 2 == 1,
                intervention=interventions and index in (3, 4),
            )
        )
        transitions -= index > 0
    return steps


def eventually(condition, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


class Running:
    """A learner in a thread of its own."""

    def __init__(self, folder):
        self.learner = Learner(folder)
        self.stop = threading.Event()
        self.outcome = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        self.outcome = self.learner.run(self.stop)

    def end(self):
        self.stop.set()
        return self.wait()

    def wait(self):
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.outcome


@pytest.fixture
def make_folder(tmp_path):
    def make(name="run", **changes):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            bind = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        settings = {"warmup_steps": 20, "checkpoint_every": 30, "bind": bind} | changes.pop("learner", {})
        config = TrainConfig(
            task="T", demos="none", max_steps=120, agent=AGENT, learner=LearnerConfig(**settings)
        )
        return RunFolder.create(tmp_path / name, msgspec.structs.replace(config, **changes))

    return make


@pytest.fixture
def make_client(tmp_path):
    clients = []

    def make(folder, steps=(), spec=SPEC):
        address = folder.config.learner.bind
        client = ActorClient(address, secrets.token_hex(8), spec, tmp_path / f"spool-{folder.path.name}")
        clients.append(client)
        client.connect(20)
        for step in steps:
            client.put(step)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def start():
    started = []

    def make(folder):
        started.append(Running(folder))
        return started[-1]

    yield make
    for running in started:
        running.end()


def trained(folder):
    """Everything that training left: agent, counters and random states; without wall-clock."""
    tensors, meta = load_checkpoint(folder.checkpoint)
    del meta["counters"]["training_s"]
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, meta


@pytest.fixture
def uninterrupted(make_folder, make_client, start):
    folder = make_folder("uninterrupted")
    running = start(folder)
    make_client(folder, make_steps(120, interventions=True))
    assert running.wait().env_steps == 120
    return trained(folder)


@pytest.mark.parametrize("stop_at", [1, 25, 47, 90])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(
    uninterrupted, make_folder, make_client, start, stop_at
):
    folder = make_folder()
    first = start(folder)
    client = make_client(folder, make_steps(120, interventions=True))
    eventually(lambda: first.learner.counters.env_steps >= stop_at)
    assert first.end() is None
    second = start(folder)
    outcome = second.wait()
    assert (outcome.env_steps, outcome.updates) == (120, 500)
    assert trained(folder) == uninterrupted
    eventually(lambda: client.stop_reason is not None)


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(uninterrupted, make_folder, make_client):
    folder = make_folder()
    command = [sys.executable, "-m", "serl_suite.cli.main", "learner", "--resume", str(folder.path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as first:
        make_client(folder, make_steps(120, interventions=True))
        eventually(folder.checkpoint.exists)
        first.kill()
    assert not folder.outcome.exists()
    subprocess.run(command, check=True, timeout=60, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert msgspec.json.decode(folder.outcome.read_bytes(), type=Outcome).updates == 500
    assert trained(folder) == uninterrupted


def test_a_killed_learner_hands_out_no_policy_before_it_has_caught_up_with_its_journal(
    make_folder, make_client, start, tmp_path
):
    """An actor that began with the checkpoint's policy would lag behind by the rest of the journal for ever."""
    folder = make_folder(max_steps=200, agent=msgspec.structs.replace(AGENT, utd=40.0))
    command = [sys.executable, "-m", "serl_suite.cli.main", "learner", "--resume", str(folder.path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as first:
        client = make_client(folder, make_steps(125))
        eventually(lambda: folder.checkpoint.exists() and client.progress.unacked == 0)
        first.kill()
    client.close()
    counted = load_checkpoint(folder.checkpoint)[1]["counters"]["env_steps"]
    assert counted < 110, "the checkpoint is behind the journal"
    second = start(folder)
    actor = ActorClient(
        folder.config.learner.bind, "fresh", SPEC, tmp_path / "spool-fresh", in_order_weights=True
    )
    actor.connect(20)
    assert actor.wait_weights(0, 60).version == 12  # of twelve whole blocks; five steps wait for the next
    assert second.learner.counters.env_steps == 120
    assert second.learner.counters.updates == 100 * 40
    actor.close()


def test_at_the_end_the_episode_of_a_dead_actor_becomes_a_file(make_folder, make_client, start):
    folder = make_folder(max_steps=50)
    running = start(folder)
    codec = Codec()
    with zmq.Context() as context, context.socket(zmq.DEALER) as dead:
        dead.connect(folder.config.learner.bind)
        dead.send_multipart(codec.encode(Hello(session_id="dead", actor="dead", spec=SPEC)))
        dead.send_multipart(codec.encode(Steps(session_id="dead", steps=make_steps(14))))
        eventually(lambda: running.learner.counters.env_steps == 10)
    make_client(folder, make_steps(36, seed=1))
    assert running.wait().env_steps == 50
    cut, *whole = sorted(read_dataset(folder.episodes), key=len)
    assert (cut.session_id, len(cut), cut.steps[-1].ends_episode) == ("dead", 5, False)
    assert [(len(episode), episode.steps[-1].ends_episode) for episode in whole] == [(LENGTH, True)] * 5
    assert not list(folder.journal.rglob("*.wal"))


def write_config(folder, **changes):
    """As somebody does who edits config.yaml between two starts."""
    config = msgspec.structs.replace(folder.config, **changes)
    (folder.path / "config.yaml").write_bytes(msgspec.yaml.encode(config))
    return RunFolder(folder.path)


@pytest.mark.parametrize(
    ("changes", "named"), [({"hidden": (24,)}, "(16|24)"), ({"num_critics": 3}, r"\(2, .*\(3, ")]
)
def test_a_checkpoint_of_other_settings_is_refused_and_stays(make_folder, make_client, start, changes, named):
    folder = make_folder()
    running = start(folder)
    make_client(folder, make_steps(40))
    eventually(lambda: running.learner.counters.env_steps == 40)
    running.end()
    before = folder.checkpoint.read_bytes()
    edited = write_config(folder, agent=msgspec.structs.replace(AGENT, **changes))
    with pytest.raises(BadAgent, match=f"does not fit this agent: .*{named}.*set agent and device back"):
        Learner(edited).run(threading.Event())
    assert folder.checkpoint.read_bytes() == before
    again = start(write_config(folder))
    eventually(lambda: again.learner.counters.env_steps == 40)


def test_a_damaged_checkpoint_is_refused_and_stays(make_folder, make_client, start):
    folder = make_folder()
    running = start(folder)
    make_client(folder, make_steps(40))
    eventually(lambda: running.learner.counters.env_steps == 40)
    running.end()
    damaged = folder.checkpoint.read_bytes()[:-100]
    folder.checkpoint.write_bytes(damaged)
    with pytest.raises(BadCheckpoint, match="damaged"):
        Learner(folder).run(threading.Event())
    assert folder.checkpoint.read_bytes() == damaged


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(make_folder, device):
    folder = make_folder(learner={"device": device})
    with pytest.raises(DeviceUnavailable, match=f"no device '{device}' on this machine .*choose one of cpu"):
        Learner(folder)
    assert not list(folder.journal.iterdir()), "nothing was begun"


def test_interventions_enter_both_replays(make_folder, make_client, start, monkeypatch):
    monkeypatch.setattr(learner_module, "LOG_PERIOD_S", 0.0)
    folder = make_folder(max_steps=90)
    running = start(folder)
    make_client(folder, make_steps(90, interventions=True))
    running.wait()
    last = read_metrics(folder.metrics / "learner.jsonl")[-1]
    assert last["replay/online"] == 90
    assert last["replay/demos"] == 20  # two steps in each of ten episodes


def test_the_spent_budget_ends_training_and_tells_the_actor(make_folder, make_client, start):
    folder = make_folder(max_steps=50)
    running = start(folder)
    client = make_client(folder, make_steps(70))
    outcome = running.wait()
    eventually(lambda: client.stop_reason is not None)
    assert client.stop_reason == outcome.reason == "the budget of 50 env steps is spent"
    assert (outcome.passed, outcome.env_steps, outcome.updates) == (False, 50, 30 * 5)
    assert msgspec.json.decode(folder.outcome.read_bytes(), type=Outcome) == outcome
    assert load_checkpoint(folder.policy)[1]["version"] == outcome.policy_version == 5
    assert not folder.address.exists()


@pytest.mark.parametrize(("successes", "passes"), [(10, True), (9, False)])
def test_only_an_evaluation_that_passes_ends_training_and_its_policy_is_kept(
    make_folder, make_client, start, successes, passes
):
    folder = make_folder()
    running = start(folder)
    client = make_client(folder, make_steps(60))
    weights = client.wait_weights(2, 30)
    arrays = {name: array + 1.0 for name, array in weights.arrays.items()}
    outcomes = [EpisodeOutcome(success=i < successes, episode_return=0.0, length=3) for i in range(10)]
    client.send_evaluation(2, 40, outcomes, arrays)
    if not passes:
        eventually(lambda: running.learner.counters.env_steps == 60)
        time.sleep(0.3)
        assert running.end() is None
        return
    outcome = running.wait()
    assert (outcome.passed, outcome.policy_version) == (True, 2)
    tensors, meta = load_checkpoint(folder.policy)
    assert meta["version"] == 2
    assert tensors.keys() == arrays.keys()
    assert all(np.array_equal(tensors[name].numpy(), array) for name, array in arrays.items())


def test_debt_is_capped_and_what_is_forgiven_is_logged(make_folder, make_client, start, monkeypatch):
    monkeypatch.setattr(learner_module, "LOG_PERIOD_S", 0.0)
    folder = make_folder(
        actor=ActorConfig(pace="realtime"),
        agent=msgspec.structs.replace(AGENT, utd=100.0),
        learner={"max_owed_updates": 30},
    )
    running = start(folder)
    make_client(folder, make_steps(120))
    outcome = running.wait()
    last = read_metrics(folder.metrics / "learner.jsonl")[-1]
    assert outcome.updates + last["learner/updates_forgiven"] == 100 * 100  # those after the warm-up
    assert last["learner/updates_forgiven"] > 5000
    records = read_metrics(folder.metrics / "learner.jsonl")
    assert max(record["learner/updates_owed"] for record in records) <= 30


def test_free_updates_go_on_while_the_actor_rests_and_are_published(make_folder, make_client, start):
    folder = make_folder(actor=ActorConfig(pace="realtime"), agent=msgspec.structs.replace(AGENT, utd="free"))
    running = start(folder)
    client = make_client(folder, make_steps(40))
    assert (
        client.wait_weights(5, 20).version >= 5
    )  # 50 updates each, and only 20 transitions after the warm-up
    running.end()
    assert running.learner.counters.updates >= 250


def test_three_actors_at_once_every_step_is_taken_exactly_once(make_folder, make_client, start):
    folder = make_folder(max_steps=300)
    running = start(folder)
    clients = [make_client(folder) for _ in range(3)]
    streams = {client.session_id: make_steps(100, seed=seed) for seed, client in enumerate(clients)}

    def feed(client):
        for step in streams[client.session_id]:
            client.put(step)

    for client in clients:
        threading.Thread(target=feed, args=(client,)).start()
    assert running.wait().env_steps == 300
    journal = Journal(folder.path)
    received = {}
    for session, step in journal.recover():
        received.setdefault(session, []).append(step)
    journal.close()
    assert received.keys() == streams.keys()
    for session, steps in streams.items():
        assert [step.seq for step in received[session]] == list(range(len(steps)))
        assert all(
            np.array_equal(a.observation["state"], b.observation["state"])
            for a, b in zip(received[session], steps, strict=True)
        )


HUGE = {f"camera{k}": ArraySpec(shape=(4096, 4096, 3), dtype="uint8") for k in range(64)}


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        ({"state": ArraySpec(shape=(20_000,), dtype="float32")}, "a state of 20000 numbers; at most 16384"),
        ({"wrist": ArraySpec(shape=(8, 12, 3), dtype="uint8")}, "one square size is needed"),
        (HUGE, r"replays of 484 frames .* GB.*--learner.replay-capacity \d+ or less"),
    ],
    ids=["state", "image", "memory"],
)
def test_spaces_that_cannot_be_learned_on_are_refused_and_the_next_actor_is_welcome(
    make_folder, make_client, start, observation, reason
):
    folder = make_folder()
    running = start(folder)
    spec = msgspec.structs.replace(SPEC, observation=observation)
    with pytest.raises(SpecRefused, match=reason):
        make_client(folder, spec=spec)
    make_client(folder, make_steps(10))
    eventually(lambda: running.learner.counters.env_steps == 10)


def test_other_spaces_than_the_runs_are_refused(make_folder, make_client, start):
    folder = make_folder()
    start(folder)
    make_client(folder)
    other = msgspec.structs.replace(SPEC, observation={"state": ArraySpec(shape=(4,), dtype="float32")})
    with pytest.raises(SpecRefused, match=r"'state'.*\(3,\).*\(4,\)"):
        make_client(folder, spec=other)


def test_a_resumed_learner_outruns_versions_that_actors_have_used(make_folder, make_client, start):
    """Its checkpoint may be older than what it had published before it was killed, and actors take newer only."""
    folder = make_folder(actor=ActorConfig(pace="realtime"))
    first = start(folder)
    steps = [msgspec.structs.replace(step, policy_version=700) for step in make_steps(30)]
    client = make_client(folder, steps)
    eventually(lambda: client.progress.unacked == 0)
    first.end()
    start(folder)
    assert client.wait_weights(701, 30).version >= 701


def test_a_resumed_learner_tells_how_far_the_run_is_before_it_hands_out_a_policy(
    make_folder, make_client, start
):
    folder = make_folder()
    first = start(folder)
    client = make_client(folder, make_steps(40))
    eventually(lambda: client.progress.unacked == 0)
    client.close()
    first.end()
    start(folder)
    fresh = make_client(folder)
    eventually(lambda: fresh.progress.newest_version >= 0)
    assert fresh.progress.env_steps == 40
