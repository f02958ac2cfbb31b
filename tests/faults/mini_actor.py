"""An actor that only sends: `mini_actor.py ADDRESS SPOOL LOG PERIOD_S`. After each `put` that returned it appends
`<session> <seq> <seconds since the last put returned> <seconds that put took>` to LOG. Ends well on SIGTERM."""

import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from serl_suite.wire.client import ActorClient, LearnerUnreachable
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

CAMERA = ArraySpec(shape=(32, 32, 3), dtype="uint8")
SPEC = EnvSpec(
    task="T",
    observation={"state": ArraySpec(shape=(4,), dtype="float64"), "wrist": CAMERA},
    action=ArraySpec(shape=(1,), dtype="float32", low=-1.0, high=1.0),
)
LENGTH = 24


def make_step(session: str, seq: int) -> Step:
    """A step that can be told from every other."""
    episode, index = divmod(seq, LENGTH + 1)
    rng = np.random.default_rng([int(session, 16), seq])
    return Step(
        seq=seq,
        episode=episode,
        index=index,
        observation={"state": rng.normal(size=4), "wrist": rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)},
        action=np.zeros(1, np.float32) if index else None,
        truncated=index == LENGTH,
    )


def main(address: str, spool: str, log: str, period_s: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    session = secrets.token_hex(6)
    client = ActorClient(address, session, SPEC, Path(spool))
    while not stop.is_set():
        try:
            client.connect(1.0)
            break
        except LearnerUnreachable:
            continue
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seq, due, last = 0, time.monotonic(), time.monotonic()
    while not stop.is_set():
        step = make_step(session, seq)
        due += float(period_s)
        time.sleep(max(0.0, due - time.monotonic()))
        start = time.monotonic()
        client.put(step)
        now = time.monotonic()
        os.write(out, f"{session} {seq} {now - last:.6f} {now - start:.6f}\n".encode())
        last = now
        client.take_weights()
        seq += 1
    client.close(20)


if __name__ == "__main__":
    main(*sys.argv[1:])
