"""The baseline of what comes one way from process to process: bare pyzmq, and nothing else."""

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import zmq

__all__ = ["one_way"]


def one_way(frames: Sequence[bytes], *, count: int, period_s: float) -> list[float]:
    """How long each of `count` messages of these frames takes, one every `period_s` [s]."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_receive, args=(theirs, count))
    process.start()
    sender = zmq.Context().socket(zmq.PUSH)
    sender.connect(f"tcp://127.0.0.1:{ours.recv()}")
    sent = []
    time.sleep(0.2)
    for _ in range(count):
        sent.append(time.monotonic_ns())
        sender.send_multipart(frames)
        time.sleep(period_s)
    stamps = ours.recv()
    process.join()
    return [(b - a) * 1e-9 for a, b in zip(sent, stamps, strict=True)]


def _receive(pipe: Connection, count: int) -> None:
    """Stamps what comes."""
    receiver = zmq.Context().socket(zmq.PULL)
    pipe.send(receiver.bind_to_random_port("tcp://127.0.0.1"))
    stamps = []
    for _ in range(count):
        receiver.recv_multipart()
        stamps.append(time.monotonic_ns())
    pipe.send(stamps)
