"""The actor's end against a real learner's socket, a dead one, a frozen one, and an evil one."""

import itertools
import secrets
import threading
import time

import msgspec
import numpy as np
import pytest
import zmq

from serl_suite.data.journal import Journal
from serl_suite.nodes.ingest import Ingest
from serl_suite.wire import messages
from serl_suite.wire.client import ActorClient, LearnerUnreachable, SpecRefused
from serl_suite.wire.codec import PREFIX, Codec
from serl_suite.wire.endpoint import AddressError
from serl_suite.wire.keys import client_keys, make_keys, server_keys
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, BadStep, EnvSpec

SPEC = EnvSpec(
    task="T",
    observation={"state": ArraySpec(shape=(400,), dtype="float32")},
    action=ArraySpec(shape=(1,), dtype="float32", low=-1.0, high=1.0),
)
LENGTH = 9


def make_step(seq):
    episode, index = divmod(seq, LENGTH + 1)
    return Step(
        seq=seq,
        episode=episode,
        index=index,
        observation={"state": np.full(400, seq, np.float32)},
        action=np.zeros(1, np.float32) if index else None,
        truncated=index == LENGTH,
    )


class Learner:
    """Journal and ingest that can be taken down and brought up again on the same port."""

    def __init__(self, run, address="tcp://127.0.0.1:0", run_id="run-1", **options):
        self.run, self.run_id, self.options = run, run_id, options
        self.address, self.ingest = address, None
        self.start()

    def start(self):
        self.journal = Journal(self.run)
        self.ingest = Ingest(self.address, self.journal, self.run_id, **self.options)
        self.ingest.set_agent({"name": "test"})
        self.address = self.ingest.address

    def stop(self):
        if self.ingest is not None:
            self.ingest.close()
            self.journal.close()
            self.ingest = None

    def seqs(self, session_id):
        """What is on disk when the learner has ended."""
        self.stop()
        journal = Journal(self.run)
        seqs = [step.seq for session, step in journal.recover() if session == session_id]
        journal.close()
        return seqs


@pytest.fixture
def learner(tmp_path):
    learner = Learner(tmp_path / "run")
    yield learner
    learner.stop()


@pytest.fixture
def make_client(tmp_path):
    clients = []

    def make(address, **options):
        options = {"session_id": secrets.token_hex(8), "spec": SPEC, "spool": tmp_path / "spool", **options}
        clients.append(ActorClient(address, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def eventually(condition, timeout_s=15.0):
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_no_learner_is_named_with_a_remedy_and_asked_again_later(make_client, tmp_path):
    probe = zmq.Context().socket(zmq.ROUTER)
    port = probe.bind_to_random_port("tcp://127.0.0.1")
    probe.close(0)
    client = make_client(f"tcp://127.0.0.1:{port}")
    with pytest.raises(LearnerUnreachable, match=r"within 0\.3 s; start it with `serl learner --run DIR`"):
        client.connect(0.3)
    learner = Learner(tmp_path / "run", f"tcp://127.0.0.1:{port}")
    assert client.connect(10).run_id == "run-1"
    learner.stop()


def test_spaces_that_do_not_fit_are_an_error_on_both_sides(make_client, tmp_path):
    learner = Learner(tmp_path / "run", check=lambda spec: f"no {spec.task} here; start FrankaReach-v0")
    with pytest.raises(SpecRefused, match="no T here; start FrankaReach-v0"):
        make_client(learner.address).connect(10)
    assert learner.ingest.counters["refused"] >= 1
    learner.stop()


def test_another_machine_without_keys_is_refused(make_client):
    with pytest.raises(AddressError, match="serl keys make actor"):
        make_client("tcp://192.168.77.1:5555")


def test_bad_steps_are_not_taken(learner, make_client):
    client = make_client(learner.address)
    client.connect(10)
    client.put(make_step(0))
    nan = msgspec.structs.replace(make_step(1), observation={"state": np.full(400, np.nan, np.float32)})
    with pytest.raises(BadStep, match=r"step 1 .*'state' holds nan"):
        client.put(nan)
    with pytest.raises(BadStep, match="does not follow"):
        client.put(msgspec.structs.replace(make_step(1), index=3))
    assert client.next_seq == 1
    client.put(make_step(1))
    assert client.close(10)


def test_arrays_may_change_after_put(learner, make_client):
    client = make_client(learner.address)
    client.connect(10)
    state = np.zeros(400, np.float32)
    for seq in range(60):
        state[:] = seq
        client.put(msgspec.structs.replace(make_step(seq), observation={"state": state}))
    assert client.close(10)
    learner.ingest.flush(5)
    values = [step.observation["state"] for _, step in learner.ingest.drain()]
    assert [(v.min(), v.max()) for v in values] == [(seq, seq) for seq in range(60)]


def test_a_learner_that_comes_and_goes_gets_every_step_once(make_client, tmp_path):
    learner = Learner(tmp_path / "run")
    client = make_client(learner.address)
    client.connect(10)
    seqs = iter(range(10_000))
    for _ in range(3):
        for _ in range(70):
            client.put(make_step(next(seqs)))
            time.sleep(0.001)
        learner.stop()
        for _ in range(40):
            client.put(make_step(next(seqs)))
        learner.start()
    assert eventually(lambda: client.progress.unacked == 0)
    assert learner.seqs(client.session_id) == list(range(330))
    assert client.counters["reconnects"] <= 3


def test_a_long_absence_costs_the_environment_nothing(make_client, tmp_path):
    """As many steps as a robot at 10 Hz takes in ten minutes, with no learner there."""
    learner = Learner(tmp_path / "run")
    client = make_client(learner.address)
    client.connect(10)
    client.put(make_step(0))
    learner.stop()
    durations = []
    for seq in range(1, 6000):
        start = time.perf_counter()
        client.put(make_step(seq))
        durations.append(time.perf_counter() - start)
    assert np.quantile(durations, 0.99) < 0.01
    learner.start()
    assert eventually(lambda: client.progress.unacked == 0, 30)
    assert learner.seqs(client.session_id) == list(range(6000))


def test_what_an_earlier_actor_left_is_sent_by_the_next(learner, make_client, tmp_path):
    first = make_client(learner.address)
    first.connect(10)
    first.put(make_step(0))
    assert eventually(lambda: first.progress.unacked == 0)
    learner.stop()
    for seq in range(1, 25):
        first.put(make_step(seq))
    assert not first.close(0)
    learner.start()
    second = make_client(learner.address)
    second.connect(10)
    assert eventually(lambda: not (tmp_path / "spool" / first.session_id).exists())
    assert learner.seqs(first.session_id) == list(range(25))


def test_the_steps_of_one_run_never_reach_another(learner, make_client, tmp_path):
    first = make_client(learner.address)
    first.connect(10)
    learner.stop()
    first.put(make_step(0))
    other = Learner(tmp_path / "other", learner.address, run_id="run-2")
    assert eventually(lambda: first.stop_reason is not None)
    assert "belongs to run run-1" in first.stop_reason
    assert not first.close(0)
    second = make_client(other.address)
    second.connect(10)
    second.put(make_step(0))
    assert second.close(10)
    assert other.seqs(first.session_id) == []
    learner.start()
    third = make_client(learner.address)
    third.connect(10)
    assert eventually(lambda: not (tmp_path / "spool" / first.session_id).exists())
    assert learner.seqs(first.session_id) == [0]


def test_only_the_newest_weights_reach_a_slow_subscriber(learner, make_client):
    """Versions come ten times as fast as the actor looks: it sees few, each newer, at last the newest."""
    client = make_client(learner.address)
    client.connect(10)
    seen = []
    for version in range(200):
        learner.ingest.publish(version, {"w": np.full(20_000, version, np.float32)})
        time.sleep(0.003)
        if version % 10 == 9:
            weights = client.take_weights()
            if weights is not None:
                assert (weights.arrays["w"] == weights.version).all()
                seen.append((weights.version, version))
    learner.ingest.publish(200, {})
    assert client.wait_weights(200, 5).version == 200
    versions = [version for version, _ in seen]
    assert versions == sorted(set(versions))
    assert 5 <= len(seen) <= 20
    assert np.median([published - got for got, published in seen]) <= 5
    assert eventually(lambda: client.progress.newest_version == 200)


def test_a_subscriber_that_stops_reading_costs_the_learner_one_message(learner):
    peer = zmq.Context().socket(zmq.DEALER)
    peer.set(zmq.RCVHWM, 1)
    peer.connect(learner.address)
    codec = Codec()
    peer.send_multipart(codec.encode(messages.Hello(session_id="slow", actor="slow", spec=SPEC)))
    peer.send_multipart(codec.encode(messages.WeightsRequest(have_version=-1)))
    for version in range(100):
        learner.ingest.publish(version, {"w": np.zeros(100_000, np.float32)})
        time.sleep(0.002)
    got = []
    while peer.poll(300):
        message = codec.decode(peer.recv_multipart())
        if isinstance(message, messages.Weights):
            got.append(message.version)
    assert len(got) == 1
    peer.context.destroy(0)


def test_every_kept_version_in_turn_where_asked_for(learner, make_client):
    client = make_client(learner.address, in_order_weights=True)
    client.connect(10)
    learner.ingest.publish(0, {"w": np.zeros(3, np.float32)})
    assert client.wait_weights(0, 5).version == 0
    for version in range(1, 5):
        learner.ingest.publish(version, {"w": np.full(3, version, np.float32)})
    assert [client.wait_weights(version, 5).version for version in range(1, 5)] == [1, 2, 3, 4]
    assert client.wait_weights(5, 0.05) is None


def test_half_precision_on_request_is_handed_out_as_float32(learner, make_client):
    client = make_client(learner.address, half_weights=True)
    client.connect(10)
    learner.ingest.publish(0, {"w": np.array([1 / 3], np.float32), "n": np.array([70_000])})
    arrays = client.wait_weights(0, 5).arrays
    assert arrays["w"].dtype == np.float32
    assert arrays["w"][0] == np.float16(1 / 3)
    assert arrays["n"].tolist() == [70_000]
    arrays["w"] += 1  # the caller's own


def test_versions_only_grow(learner):
    learner.ingest.publish(3, {})
    with pytest.raises(ValueError, match="version 3 was published after 3"):
        learner.ingest.publish(3, {})


def test_the_end_of_training_reaches_actors_now_and_later(learner, make_client):
    early = make_client(learner.address)
    early.connect(10)
    learner.ingest.broadcast_stop("evaluation passed")
    assert eventually(lambda: early.stop_reason == "evaluation passed")
    late = make_client(learner.address)
    late.connect(10)
    assert eventually(lambda: late.stop_reason == "evaluation passed")


def test_progress_tells_how_training_stands(learner, make_client):
    client = make_client(learner.address)
    client.connect(10)
    learner.ingest.set_progress(120, 7.5)
    assert eventually(lambda: client.progress.env_steps == 120)
    assert client.progress.updates_owed == 7.5


def test_evaluations_do_not_wait_for_silence(learner, make_client):
    """While training goes on, acknowledgements never cease."""
    client = make_client(learner.address)
    client.connect(10)
    outcome = messages.EpisodeOutcome(success=True, episode_return=1.0, length=30)
    for version in range(3):
        client.send_evaluation(version, 0, [outcome], {"w": np.zeros(3, np.float32)})
    received, deadline = [], time.monotonic() + 3.0
    for env_steps in itertools.count():
        learner.ingest.set_progress(env_steps, 0.0)
        received += learner.ingest.take_evaluations()
        if len(received) == 3 or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert [evaluation.version for evaluation in received] == [0, 1, 2]


def test_only_keys_that_are_let_in(make_client, tmp_path):
    for name in ("learner", "actor", "stranger"):
        make_keys(name, tmp_path / "keys")
    stranger = client_keys("stranger", folder=tmp_path / "keys")
    (tmp_path / "keys" / "stranger.public").rename(tmp_path / "stranger.away")
    learner = Learner(tmp_path / "run", keys=server_keys(folder=tmp_path / "keys"))
    client = make_client(learner.address, keys=client_keys(folder=tmp_path / "keys"))
    client.connect(10)
    client.put(make_step(0))
    assert eventually(lambda: client.progress.unacked == 0)
    for keys in (stranger, None):
        with pytest.raises(LearnerUnreachable):
            make_client(learner.address, keys=keys).connect(0.5)
    assert eventually(lambda: learner.ingest.counters["handshakes"] >= 1)
    assert len(learner.ingest.sessions) == 1
    learner.stop()


class EvilRouter:
    """Welcomes actors, the first with much garbage, and answers nothing else."""

    def __init__(self, garbage_count):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.set(zmq.SNDHWM, 0)
        self.address = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.sent, self.garbage_count, self.stopped = 0, garbage_count, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def garbage(self, rng, codec, session_id):
        encode = codec.encode
        return [
            lambda: [rng.bytes(int(rng.integers(0, 200)))],
            lambda: [PREFIX + rng.bytes(int(rng.integers(0, 200)))],
            lambda: encode(messages.Ack(session_id=session_id, durable_seq=int(rng.integers(100, 2**40)))),
            lambda: encode(messages.Hello(session_id=session_id, actor="x", spec=SPEC)),
            lambda: [*encode(messages.Weights(version=int(rng.integers(2**40)), arrays={})), b"x"],
            lambda: encode(
                messages.Welcome(session_id=session_id, run_id="run-1", last_durable_seq=10**9, agent={})
            ),
            lambda: [*encode(messages.Ack(session_id=session_id, durable_seq=0)), b""],
        ]

    def run(self):
        rng, codec = np.random.default_rng(0), Codec()
        while not self.stopped:
            if not self.socket.poll(20):
                continue
            identity, *frames = self.socket.recv_multipart()
            message = codec.decode(frames)
            if isinstance(message, messages.Hello):
                kinds = self.garbage(rng, codec, message.session_id)
                welcome = messages.Welcome(
                    session_id=message.session_id, run_id="run-1", last_durable_seq=-1, agent={}
                )
                self.socket.send_multipart([identity, *codec.encode(welcome)])
                for i in range(0 if self.sent else self.garbage_count):
                    self.socket.send_multipart([identity, *kinds[i % len(kinds)]()])
                    self.sent += 1
        self.context.destroy(0)


def test_an_evil_learner_is_counted_and_outlived(make_client, tmp_path):
    count = 100_000
    evil = EvilRouter(garbage_count=count)
    client = make_client(evil.address)
    client.connect(10)
    client.put(make_step(0))
    assert eventually(lambda: client.counters["malformed"] == count, 60)
    client.put(make_step(1))
    assert client.progress.unacked == 2
    evil.stopped = True
    evil.thread.join()
    learner = Learner(tmp_path / "run", evil.address)
    assert eventually(lambda: client.progress.unacked == 0)
    assert learner.seqs(client.session_id) == [0, 1]
