"""The learner's socket against what a bare ZMQ peer can send; sessions and weights against the real client."""

import os
import resource
import secrets
import socket as sockets
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from serl_suite.data.episodes import read_dataset
from serl_suite.data.journal import Journal
from serl_suite.nodes.ingest import Ingest
from serl_suite.wire import messages
from serl_suite.wire.client import ActorClient
from serl_suite.wire.codec import PREFIX, Codec
from serl_suite.wire.endpoint import PortInUse
from serl_suite.wire.messages import Hello, Step, Steps, Welcome
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SPEC = EnvSpec(
    task="T",
    observation={"state": ArraySpec(shape=(400,), dtype="float32")},
    action=ArraySpec(shape=(1,), dtype="float32", low=-1.0, high=1.0),
)
LENGTH = 9


def make_step(seq, **changes):
    episode, index = divmod(seq, LENGTH + 1)
    fields = {
        "seq": seq,
        "episode": episode,
        "index": index,
        "observation": {"state": np.full(400, seq, np.float32)},
        "action": np.zeros(1, np.float32) if index else None,
        "truncated": index == LENGTH,
    }
    return Step(**{**fields, **changes})


class Peer:
    """A bare DEALER that says whatever a test wants."""

    def __init__(self, address):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 1000)
        self.socket.connect(address)
        self.codec = Codec()

    def send(self, message):
        self.socket.send_multipart(self.codec.encode(message))

    def receive(self, kind, timeout_s=5.0):
        """The next message of a kind; others are skipped."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if self.socket.poll(left * 1000):
                message = self.codec.decode(self.socket.recv_multipart())
                if isinstance(message, kind):
                    return message
        raise AssertionError(f"no {kind.__name__} came")

    def hello(self, session_id="s", spec=SPEC, **changes):
        self.send(Hello(session_id=session_id, actor="peer", spec=spec, **changes))
        return self.receive(Welcome)

    def close(self):
        self.context.destroy(0)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "run")
    yield journal
    journal.close()


@pytest.fixture
def ingest(journal):
    ingest = Ingest("tcp://127.0.0.1:0", journal, "run-1", max_message_bytes=200_000)
    ingest.set_agent({"name": "test"})
    yield ingest
    ingest.close()


@pytest.fixture
def peer(ingest):
    peer = Peer(ingest.address)
    yield peer
    peer.close()


@pytest.fixture
def make_client(ingest, tmp_path):
    clients = []

    def make(**options):
        options = {"session_id": secrets.token_hex(8), "spec": SPEC, "spool": tmp_path / "spool", **options}
        clients.append(ActorClient(ingest.address, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def drain(ingest, count, timeout_s=10.0):
    steps, deadline = [], time.monotonic() + timeout_s
    while len(steps) < count and time.monotonic() < deadline:
        ingest.wait(0.1)
        steps += ingest.drain()
    return steps


def eventually(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_steps_arrive_in_order_and_are_acknowledged_when_durable(ingest, peer, journal, tmp_path):
    assert peer.hello().agent == {"name": "test"}
    peer.send(Steps(session_id="s", steps=[make_step(seq) for seq in range(15)]))
    received = drain(ingest, 15)
    assert [(session, step.seq, step.observation["state"][7]) for session, step in received] == [
        ("s", seq, float(seq)) for seq in range(15)
    ]
    while peer.receive(messages.Ack).durable_seq < 14:
        pass
    assert ingest.flush(1)
    assert eventually(lambda: journal.closed == 0)
    assert len(read_dataset(tmp_path / "run" / "episodes")) == 1


def test_replayed_steps_are_taken_once_and_gaps_are_asked_for(ingest, peer):
    peer.hello()
    for first, last in ((0, 4), (2, 6), (0, 7), (9, 12)):
        peer.send(Steps(session_id="s", steps=[make_step(seq) for seq in range(first, last)]))
    assert [step.seq for _, step in drain(ingest, 7)] == list(range(7))
    assert peer.receive(messages.Resend).from_seq == 7
    peer.send(Steps(session_id="s", steps=[make_step(seq) for seq in range(5, 12)]))
    assert [step.seq for _, step in drain(ingest, 5)] == list(range(7, 12))
    assert (ingest.counters["duplicates"], ingest.counters["gaps"]) == (2 + 6 + 2, 3)


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        ({"observation": {"state": np.full(400, np.nan, np.float32)}}, "holds nan"),
        ({"observation": {"state": np.zeros(3, np.float32)}}, "the spec says"),
        ({"index": 5}, "does not follow"),
        ({"action": np.array([np.inf], np.float32)}, "action holds inf"),
    ],
)
def test_a_session_that_sends_bad_data_is_refused_and_the_rest_is_kept(ingest, peer, bad, cause):
    peer.hello()
    peer.send(Steps(session_id="s", steps=[make_step(0), make_step(1), make_step(2, **bad), make_step(3)]))
    assert cause in peer.receive(messages.Refused).reason
    assert [step.seq for _, step in drain(ingest, 2)] == [0, 1]
    assert ingest.flush(1)
    assert peer.hello().last_durable_seq == 1


def test_a_session_that_is_not_known_must_say_hello(ingest, peer):
    peer.send(Steps(session_id="s", steps=[make_step(0)]))
    assert peer.receive(messages.HelloRequired).session_id == "s"
    peer.send(messages.WeightsRequest(have_version=0))
    assert eventually(lambda: ingest.counters["strangers"] == 2)
    assert ingest.drain() == []


@pytest.mark.parametrize("session_id", ["", "../../etc", "a/b", "x" * 65, "a\0b"])
def test_session_ids_that_are_no_folder_names_are_dropped(ingest, peer, session_id):
    peer.send(Hello(session_id=session_id, actor="peer", spec=SPEC))
    assert eventually(lambda: ingest.counters["malformed"] == 1)
    assert ingest.sessions == []


def test_other_spaces_are_refused_in_words(ingest, peer):
    peer.hello()
    image = ArraySpec(shape=(64, 64, 3), dtype="uint8")
    other = msgspec.structs.replace(SPEC, observation={**SPEC.observation, "wrist": image})
    peer.send(Hello(session_id="other", actor="peer", spec=other))
    assert "'wrist': absent here, (64, 64, 3) uint8 there" in peer.receive(messages.Refused).reason


def test_steps_that_nobody_can_send_any_more_are_a_clear_error(ingest, peer):
    peer.send(Hello(session_id="s", actor="peer", spec=SPEC, first_seq=7))
    assert "steps 0 to 6 of this session are in no run folder here" in peer.receive(messages.Refused).reason


def test_hellos_wait_for_the_agent(journal):
    ingest = Ingest("tcp://127.0.0.1:0", journal, "run-1")
    peer = Peer(ingest.address)
    peer.send(Hello(session_id="s", actor="peer", spec=SPEC))
    assert ingest.wait_spec(5) == SPEC
    assert not peer.socket.poll(200)
    ingest.set_agent({"hidden": 256})
    assert peer.hello().agent == {"hidden": 256}
    peer.close()
    ingest.close()


def test_a_port_in_use_is_named(ingest, tmp_path):
    other = Journal(tmp_path / "other")
    with pytest.raises(PortInUse, match="in use"):
        Ingest(ingest.address, other, "run-2")
    other.close()


def hostile(rng, codec, count):
    """Malformed, truncated, oversized and replayed messages, as frames."""
    good = [bytes(f) for f in codec.encode(Steps(session_id="s", steps=[make_step(0), make_step(1)]))]
    for i in range(count):
        match i % 8:
            case 0:
                yield "malformed", [rng.bytes(int(rng.integers(0, 300)))]
            case 1:
                yield "malformed", [PREFIX + rng.bytes(int(rng.integers(0, 300)))]
            case 2:
                yield "malformed", [good[0][: int(rng.integers(0, len(good[0])))], *good[1:]]
            case 3:
                records = bytearray(good[1])
                if i % 16 == 3:
                    del records[int(rng.integers(1, len(records) // 3)) :]
                else:
                    records[int(rng.integers(len(records)))] ^= 1 << int(rng.integers(8))
                yield "malformed", [good[0], bytes(records)]
            case 4:
                yield "malformed", [*good, b"more"]
            case 5:
                yield "duplicates", good
            case 6:
                yield "malformed", codec.encode(messages.Stop(reason="not for you"))
            case _:
                big = i % 400 == 7
                yield ("oversized", [bytes(250_000)]) if big else ("malformed", [b""] * 5)


def test_hostile_messages_are_counted_and_the_learner_lives_in_bounded_memory(ingest, peer):
    peer.hello()
    peer.send(Steps(session_id="s", steps=[make_step(0), make_step(1)]))
    assert len(drain(ingest, 2)) == 2
    before = _resident_bytes()
    expected = {"malformed": 0, "oversized": 0, "duplicates": 0}
    for kind, frames in hostile(np.random.default_rng(0), Codec(), 100_000):
        expected[kind] += 2 if kind == "duplicates" else 1
        peer.socket.send_multipart(frames)
    assert eventually(lambda: all(ingest.counters[kind] >= n for kind, n in expected.items()), 120)
    assert dict(ingest.counters) == expected
    assert _resident_bytes() - before < 60e6
    peer.send(Steps(session_id="s", steps=[make_step(2)]))
    assert [step.seq for _, step in drain(ingest, 1)] == [2]


def _resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_frame_far_beyond_the_limit_costs_its_sender_the_connection(ingest, peer):
    peer.hello()
    peer.socket.send(bytes(5_000_000))
    assert eventually(lambda: ingest.disconnects >= 1)
    assert peer.hello().run_id == "run-1"


def test_bytes_that_are_no_zmq_at_all(ingest, peer):
    host, port = ingest.address.removeprefix("tcp://").split(":")
    for i in range(20):
        with sockets.create_connection((host, int(port))) as raw:
            raw.sendall(os.urandom(1 + 300 * i))
    assert peer.hello().run_id == "run-1"


def test_a_flood_of_hellos_is_refused_beyond_a_bound(ingest, peer):
    for i in range(300):
        peer.send(Hello(session_id=f"s{i}", actor="peer", spec=SPEC))
    assert "256 actors" in peer.receive(messages.Refused).reason
    assert len(ingest.sessions) == 256


def test_three_actors_feed_one_learner(ingest, make_client):
    clients = [make_client(actor_name=f"actor-{i}") for i in range(3)]
    for client in clients:
        client.connect(10)
    for seq in range(120):
        for client in clients:
            client.put(make_step(seq))
    received = drain(ingest, 360)
    for client in clients:
        assert [step.seq for session, step in received if session == client.session_id] == list(range(120))
        assert client.close(10)
    assert eventually(lambda: not ingest.sessions)  # each has said goodbye


def test_evaluations_arrive_once(ingest, make_client):
    client = make_client()
    client.connect(10)
    outcome = messages.EpisodeOutcome(success=True, episode_return=1.0, length=30)
    for version in (3, 5):
        client.send_evaluation(version, 100 * version, [outcome] * 4, {"w": np.ones(900, np.float32)})
    assert client.close(10)
    first, second = ingest.take_evaluations()
    assert (first.version, second.version, second.env_steps) == (3, 5, 500)
    assert first.episodes == [outcome] * 4
    assert first.arrays["w"].sum() == 900


def test_a_full_disk_reaches_the_caller_and_loses_nothing(ingest, make_client, journal, monkeypatch):
    from serl_suite.wire.records import DiskFull

    client = make_client()
    client.connect(10)
    client.put(make_step(0))
    drain(ingest, 1)
    assert ingest.flush(2)
    monkeypatch.setattr(os, "pwrite", _no_space_in(str(journal._wal_root), os.pwrite))
    client.put(make_step(1))
    with pytest.raises(DiskFull, match="free space"):
        assert eventually(lambda: ingest.drain() is None)
    assert client.progress.acked_seq == 0
    assert client.progress.unacked == 1


def _no_space_in(folder, write):
    def write_or_fail(fd, buffers, offset):
        if os.readlink(f"/proc/self/fd/{fd}").startswith(folder):
            raise OSError(28, "No space left on device")
        return write(fd, buffers, offset)

    return write_or_fail
