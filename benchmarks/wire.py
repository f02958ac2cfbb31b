"""How long a step and an episode take from `put` in the actor's process until the learner's process can sample them.

The learner is a process of its own with the real ingest, journal (on disk, synced) and replay (its ring filled once:
a machine hands out fresh memory slower than anything measured here). The baseline of the same run is bare pyzmq: the
same bytes from process to process, with no codec, no checks, no disk and no replay. Incumbents need 153 and 263 ms for
the episode (measured for the specification on a two-core machine).
"""

import argparse
import multiprocessing
import secrets
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import numpy as np
import zmq
from _table import Row, print_table, write_json

from serl_suite.data.journal import Journal
from serl_suite.data.replay import Replay
from serl_suite.nodes.ingest import Ingest
from serl_suite.wire.client import ActorClient
from serl_suite.wire.codec import Codec
from serl_suite.wire.messages import Step, Steps
from serl_suite.wire.spaces import ArraySpec, EnvSpec

CAMERA = ArraySpec(shape=(128, 128, 3), dtype="uint8", low=0.0, high=255.0)
SPEC = EnvSpec(
    task="Bench",
    observation={
        "wrist": CAMERA,
        "front": CAMERA,
        "state": ArraySpec(shape=(30,), dtype="float32"),
    },
    action=ArraySpec(shape=(7,), dtype="float32", low=-1.0, high=1.0),
)
EPISODE_STEPS = 100
EPISODES = 12
SINGLES = 300
SINGLE_PERIOD_S = 0.004


def learner(pipe: Connection, run: str) -> None:
    """Receives, inserts, and reports when each step became sampleable (CLOCK_MONOTONIC is one for all processes)."""
    journal = Journal(Path(run))
    ingest = Ingest("tcp://127.0.0.1:0", journal, "bench")
    ingest.set_agent({})
    replay = Replay(SPEC, 2 * EPISODE_STEPS, seed=0)
    warm = make_step(np.random.default_rng(0), 0, 0, 0)
    for seq in range(2 * EPISODE_STEPS):  # the ring's memory has been touched, as in a run that lasts
        replay.insert("warm", msgspec.structs.replace(warm, seq=seq, episode=seq))
    pipe.send(ingest.address)
    total = (EPISODE_STEPS + 1) * (EPISODES + 1) + SINGLES
    stamps: list[float] = []
    while len(stamps) < total:
        ingest.wait(0.5)
        for session_id, step in ingest.drain():
            replay.insert(session_id, step)
            stamps.append(time.monotonic())
    pipe.send(stamps)
    ingest.close()
    journal.close()


def make_step(rng: np.random.Generator, seq: int, episode: int, index: int) -> Step:
    return Step(
        seq=seq,
        episode=episode,
        index=index,
        observation={
            "wrist": rng.integers(0, 255, CAMERA.shape, dtype=np.uint8),
            "front": rng.integers(0, 255, CAMERA.shape, dtype=np.uint8),
            "state": rng.normal(size=30).astype(np.float32),
        },
        action=None if index == 0 else rng.uniform(-1, 1, 7).astype(np.float32),
        truncated=index == EPISODE_STEPS,
    )


def measure(folder: Path) -> tuple[list[float], list[float], list[float]]:
    """(seconds of each episode, of each single step, that each single `put` took), put to sampleable."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=learner, args=(theirs, str(folder / "run")))
    process.start()
    client = ActorClient(ours.recv(), secrets.token_hex(8), SPEC, folder / "spool")
    client.connect(10)
    rng = np.random.default_rng(0)
    length = EPISODE_STEPS + 1
    starts, puts = [], []
    for episode in range(EPISODES):
        steps = [make_step(rng, episode * length + i, episode, i) for i in range(length)]
        starts.append(time.monotonic())
        for step in steps:
            client.put(step)
        while client.progress.unacked:
            time.sleep(0.05)
        time.sleep(0.5)  # the journal turns the episode into a file meanwhile
    first = EPISODES * length
    singles = [make_step(rng, first + i, EPISODES + i // length, i % length) for i in range(length + SINGLES)]
    sent = []
    for step in singles:
        work(SINGLE_PERIOD_S)
        sent.append(time.monotonic())
        client.put(step)
        puts.append(time.monotonic() - sent[-1])
    stamps = ours.recv()
    client.close(5)
    process.join()
    episodes = [stamps[(i + 1) * length - 1] - start for i, start in enumerate(starts)]
    latencies = [seen - put for seen, put in zip(stamps[first:], sent, strict=True)]
    return episodes, latencies[length:], puts[length:]


def bare_receiver(pipe: Connection) -> None:
    """Receives what `measure_bare` sends and reports when each message had come."""
    socket = zmq.Context().socket(zmq.ROUTER)
    pipe.send(socket.bind_to_random_port("tcp://127.0.0.1"))
    stamps = []
    for _ in range(EPISODES * (EPISODE_STEPS + 1) + SINGLES):
        socket.recv_multipart(copy=False)
        stamps.append(time.monotonic())
    pipe.send(stamps)


def measure_bare() -> tuple[float, float]:
    """Median seconds of an episode and of a step through bare pyzmq."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=bare_receiver, args=(theirs,))
    process.start()
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(f"tcp://127.0.0.1:{ours.recv()}")
    rng, length = np.random.default_rng(0), EPISODE_STEPS + 1
    images = [rng.integers(0, 255, CAMERA.size, dtype=np.uint8).data for _ in range(2 * length)]
    starts, sent = [], []
    for _ in range(EPISODES):
        time.sleep(0.2)
        starts.append(time.monotonic())
        for i in range(length):
            socket.send_multipart([bytes(300), images[2 * i], images[2 * i + 1]])
    time.sleep(0.2)
    for i in range(SINGLES):
        work(SINGLE_PERIOD_S)
        sent.append(time.monotonic())
        socket.send_multipart([bytes(300), images[i % length], images[i % length + 1]])
    stamps = ours.recv()
    process.join()
    episodes = [stamps[(i + 1) * length - 1] - start for i, start in enumerate(starts)]
    singles = [came - put for came, put in zip(stamps[EPISODES * length :], sent, strict=True)]
    return statistics.median(episodes), statistics.median(singles)


def work(duration_s: float) -> None:
    """An actor between two steps: computes, with the interpreter let go of now and then, as an environment does."""
    end = time.monotonic() + duration_s
    a = np.ones((64, 64))
    while time.monotonic() < end:
        a @ a


def codec_times() -> tuple[float, float]:
    """Median seconds to encode and to decode one step as a message."""
    step = make_step(np.random.default_rng(0), 1, 0, 1)
    codec = Codec()
    frames = [bytes(frame) for frame in codec.encode(Steps(session_id="s", steps=[step]))]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(3000):
        start = time.perf_counter()
        codec.encode(Steps(session_id="s", steps=[step]))
        middle = time.perf_counter()
        codec.decode(frames)
        times[0].append(middle - start)
        times[1].append(time.perf_counter() - middle)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        episodes, singles, puts = measure(Path(folder))
    bare_episode, bare_single = measure_bare()
    encode, decode = codec_times()
    episode_ms, single_ms = statistics.median(episodes) * 1e3, statistics.median(singles) * 1e3
    p99 = np.quantile(singles, 0.99) * 1e3
    rows = [
        Row(
            "episode, 100 steps, two 128x128 cameras, put to sampleable, median",
            f"{episode_ms:.1f} ms (best {min(episodes) * 1e3:.1f})",
            f"{bare_episode * 1e3:.1f} ms (bare pyzmq)",
            "<= 10 ms",
            episode_ms <= 10,
        ),
        Row(
            "one transition, put to sampleable, p50",
            f"{single_ms:.3f} ms (p99 {p99:.2f})",
            f"{bare_single * 1e3:.3f} ms (bare pyzmq)",
            "<= 0.3 ms",
            single_ms <= 0.3,
        ),
        Row(
            "put, in the actor's own thread, p50 / p99",
            f"{statistics.median(puts) * 1e6:.0f} / {np.quantile(puts, 0.99) * 1e6:.0f} us",
            "",
            "",
            None,
        ),
        Row(
            "encode / decode one step",
            f"{encode * 1e6:.1f} / {decode * 1e6:.1f} us",
            "14 / 21 us (quoted)",
            "",
            None,
        ),
    ]
    passed = print_table("wire", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
