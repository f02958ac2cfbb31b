"""How long a step and an episode take from `put` in the actor's process until the learner's process can sample them.

The learner is a process of its own with the real ingest, journal (on disk, synced) and replay (its ring filled once:
a machine hands out fresh memory slower than anything measured here). The baseline of the same run is bare pyzmq: the
same bytes from process to process, with no codec, no checks, no disk and no replay. Incumbents need 153 and 263 ms for
the episode (measured for the specification on a two-core machine).

The cores are kept awake meanwhile, by a process of idle priority on each: a core of a virtual machine that has gone to
sleep takes 0.1 to 0.2 ms to wake up, as often as something is handed from thread to thread, and that is all that would
be seen (`--asleep` shows it, in ours and in bare pyzmq).
"""

import argparse
import contextlib
import multiprocessing
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import zmq
from _table import Row, print_table, write_json
from numpy.typing import NDArray

from serl_suite.data.journal import Journal
from serl_suite.data.replay import Replay
from serl_suite.networks.host import tune_host
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
LENGTH = 101
"""Steps of an episode, the reset included."""
SLOW_PERIOD_S = 0.05
ARCHIVE_S = 1.2
"""Meanwhile the journal turns episodes into files: it takes 0.3 s of the ten that a real episode lasts."""
ROUNDS = 12
WARM_UP = 3
"""Rounds that do not count: the spool's memory has been touched after them, as in a run that lasts."""
SINGLES = 50
SINGLE_PERIOD_S = 0.004
TOTAL = ROUNDS * (LENGTH + SINGLES)


def learner(pipe: Connection, run: str) -> None:
    """Receives, inserts, and reports when each step became sampleable (CLOCK_MONOTONIC is one for all processes)."""
    tune_host()
    journal = Journal(Path(run))
    ingest = Ingest("tcp://127.0.0.1:0", journal, "bench")
    ingest.set_agent({})
    replay = Replay(SPEC, 2 * LENGTH, seed=0)
    warm = make_step(np.random.default_rng(0), 0)
    for seq in range(2 * LENGTH):  # the ring's memory has been touched, as in a run that lasts
        replay.insert("warm", msgspec.structs.replace(warm, seq=seq, episode=seq))
    pipe.send(ingest.address)
    stamps: list[float] = []
    while len(stamps) < TOTAL:
        ingest.wait(0.5)
        for session_id, step in ingest.drain():
            replay.insert(session_id, step)
            stamps.append(time.monotonic())
    pipe.send(stamps)
    ingest.close()
    journal.close()


def bare_receiver(pipe: Connection) -> None:
    """Receives the same bytes and reports when each message had come."""
    tune_host()
    socket = zmq.Context().socket(zmq.ROUTER)
    pipe.send(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
    stamps = []
    for _ in range(TOTAL):
        socket.recv_multipart(copy=False)
        stamps.append(time.monotonic())
    pipe.send(stamps)


def make_step(rng: np.random.Generator, seq: int) -> Step:
    """Step `seq` of rounds of two episodes: a whole one, and one that the next round cuts off."""
    number, at = divmod(seq, LENGTH + SINGLES)
    index = at if at < LENGTH else at - LENGTH
    return Step(
        seq=seq,
        episode=2 * number + (at >= LENGTH),
        index=index,
        observation={
            "wrist": rng.integers(0, 255, CAMERA.shape, dtype=np.uint8),
            "front": rng.integers(0, 255, CAMERA.shape, dtype=np.uint8),
            "state": rng.normal(size=30).astype(np.float32),
        },
        action=None if index == 0 else rng.uniform(-1, 1, 7).astype(np.float32),
        truncated=at == LENGTH - 1,
    )


def send_round(put: Callable[[Step], None], rng: np.random.Generator, seq: int) -> list[float]:
    """One episode at once, then single steps at a period. Returns when each was put."""
    steps, starts = [make_step(rng, seq + i) for i in range(LENGTH)], []
    for step in steps:
        starts.append(time.monotonic())
        put(step)
    time.sleep(ARCHIVE_S)
    for i in range(SINGLES):
        work(SINGLE_PERIOD_S)
        step = make_step(rng, seq + LENGTH + i)
        starts.append(time.monotonic())
        put(step)
    time.sleep(0.2)
    return starts


class Figures(NamedTuple):
    """Seconds from put to sampleable."""

    episodes: NDArray[np.float64]
    """Shape: (rounds,)"""
    singles: NDArray[np.float64]
    """Shape: (rounds, SINGLES)"""

    @classmethod
    def of(cls, put: list[float], seen: list[float]) -> "Figures":
        starts, ends = (np.reshape(times, (ROUNDS, LENGTH + SINGLES)) for times in (put, seen))
        return cls((ends[:, LENGTH - 1] - starts[:, 0])[WARM_UP:], (ends - starts)[WARM_UP:, LENGTH:])


def measure(folder: Path) -> tuple[Figures, Figures, NDArray[np.float64]]:
    """(ours, bare pyzmq's, seconds that each single `put` took), round by round in turn: what else the machine does
    meets both."""
    context = multiprocessing.get_context("spawn")
    pipes, theirs = zip(context.Pipe(), context.Pipe(), strict=True)
    processes = [
        context.Process(target=learner, args=(theirs[0], str(folder / "run"))),
        context.Process(target=bare_receiver, args=(theirs[1],)),
    ]
    for process in processes:
        process.start()
    client = ActorClient(pipes[0].recv(), secrets.token_hex(8), SPEC, folder / "spool")
    client.connect(10)
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(pipes[1].recv())
    puts: list[float] = []

    def put(step: Step) -> None:
        start = time.monotonic()
        client.put(step)
        puts.append(time.monotonic() - start)

    def put_bare(step: Step) -> None:
        images = step.observation["wrist"], step.observation["front"]
        socket.send_multipart([bytes(300), *(image.data for image in images)])

    rng, ours, bare = np.random.default_rng(0), [], []
    for number in range(ROUNDS):
        ours += send_round(put, rng, number * (LENGTH + SINGLES))
        bare += send_round(put_bare, rng, number * (LENGTH + SINGLES))
    stamps = [pipe.recv() for pipe in pipes]
    client.close(5)
    for process in processes:
        process.join()
    singles = np.reshape(puts, (ROUNDS, LENGTH + SINGLES))[WARM_UP:, LENGTH:]
    return Figures.of(ours, stamps[0]), Figures.of(bare, stamps[1]), singles


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """No core sleeps."""
    processes = [
        multiprocessing.Process(target=idle, args=(core,), daemon=True) for core in os.sched_getaffinity(0)
    ]
    for process in processes:
        process.start()
    yield
    for process in processes:
        process.kill()


def idle(core: int) -> None:
    """Runs where and when nothing else wants to."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        pass


def work(duration_s: float) -> None:
    """An actor between two steps: computes, with the interpreter let go of now and then, as an environment does."""
    end = time.monotonic() + duration_s
    a = np.ones((64, 64))
    while time.monotonic() < end:
        a @ a


def codec_times() -> tuple[float, float]:
    """Median seconds to encode and to decode one step as a message."""
    step = make_step(np.random.default_rng(0), 1)
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


def weights_times(folder: Path) -> tuple[float, float, int, int]:
    """(median seconds from published to taken, mean versions between what a subscriber ten times too slow takes, most
    versions that it was behind right after taking, versions it took)."""
    journal = Journal(folder / "weights")
    ingest = Ingest("tcp://127.0.0.1:0", journal, "bench")
    ingest.set_agent({})
    client = ActorClient(ingest.address, secrets.token_hex(8), SPEC, folder / "weights-spool")
    client.connect(10)
    policy, delays = {"w": np.zeros(50_000, np.float32)}, []
    for version in range(200):
        start = time.monotonic()
        ingest.publish(version, policy)
        client.wait_weights(version, 5)
        delays.append(time.monotonic() - start)
    taken, behind = [199], []
    for version in range(200, 600):
        ingest.publish(version, policy)
        time.sleep(SLOW_PERIOD_S / 10)
        if version % 10 == 9:
            weights = client.take_weights()
            taken.append(taken[-1] if weights is None else weights.version)
            behind.append(version - taken[-1])
    client.close()
    ingest.close()
    journal.close()
    return statistics.median(delays), float(np.mean(np.diff(taken))), max(behind), len(set(taken)) - 1


def quietest(singles: NDArray[np.float64]) -> float:
    """Median of the best round [ms]."""
    return float(np.median(singles, axis=1).min() * 1e3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--asleep", action="store_true", help="do not keep the cores awake")
    arguments = parser.parse_args()
    tune_host()
    cores = contextlib.nullcontext() if arguments.asleep else awake()
    with cores, tempfile.TemporaryDirectory() as folder:
        ours, bare, puts = measure(Path(folder))
        applied, stride, behind, taken = weights_times(Path(folder))
    encode, decode = codec_times()
    episode_ms, single_ms = np.median(ours.episodes) * 1e3, np.median(ours.singles) * 1e3
    rows = [
        Row(
            "episode, 100 steps, two 128x128 cameras, put to sampleable, median (best)",
            f"{episode_ms:.1f} ({ours.episodes.min() * 1e3:.1f}) ms",
            f"{np.median(bare.episodes) * 1e3:.1f} ({bare.episodes.min() * 1e3:.1f}) ms, bare pyzmq",
            "<= 10 ms",
            bool(episode_ms <= 10),
        ),
        Row(
            "one transition, put to sampleable, p50 (of the quietest round)",
            f"{single_ms:.3f} ({quietest(ours.singles):.3f}) ms, p99 {np.quantile(ours.singles, 0.99) * 1e3:.2f}",
            f"{np.median(bare.singles) * 1e3:.3f} ({quietest(bare.singles):.3f}) ms, bare pyzmq",
            "<= 0.3 ms",
            bool(single_ms <= 0.3),
        ),
        Row(
            "put, in the actor's own thread, p50 / p99",
            f"{np.median(puts) * 1e6:.0f} / {np.quantile(puts, 0.99) * 1e6:.0f} us",
            "",
            "",
            None,
        ),
        Row("weights, 200 KB: published to taken, median", f"{applied * 1e3:.2f} ms", "", "", None),
        Row(
            "weights, a subscriber 10x too slow: versions between those taken / most behind",
            f"{stride:.1f} / {behind} ({taken} of 400 taken)",
            "",
            "newest only",
            stride >= 9 and behind <= 10,
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
