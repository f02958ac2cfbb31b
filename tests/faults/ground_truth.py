"""What a run holds, against what `counted_env` wrote down itself."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from serl_suite.data.journal import Journal
from serl_suite.wire.codec import Codec
from serl_suite.wire.spool import Spool

UNIT = 2.0**24
Key = tuple[int, int]


class Frame(NamedTuple):
    life: int
    count: int
    index: int
    time_s: float


def read_log(log: Path) -> list[Frame]:
    """What the environments wrote, in order."""
    if not log.exists():
        return []
    rows = [line.split() for line in log.read_text().splitlines()]
    return [Frame(int(life), int(count), int(index), float(time_s)) for life, count, index, time_s in rows]


def periods(frames: list[Frame]) -> np.ndarray:
    """Seconds between steps of one episode; what a reset takes is left out."""
    return np.array(
        [
            b.time_s - a.time_s
            for a, b in pairwise(frames)
            if a.life == b.life and a.index > 0 and b.index == a.index + 1
        ]
    )


class Comparison(NamedTuple):
    promised: int
    """Observations whose sending had returned to the environment."""
    lost: int
    duplicated: int
    unasked: int
    """Arrived though cut off before `put` returned: at most one a killed actor."""
    lives: int


def compare(run: Path, log: Path, *, evaluated: bool = False) -> Comparison:
    """Counts over episode files, journal and spool; a step that waits in the spool is not lost.

    Args:
        run: The run's folder; no learner may have it open.
        log: What the environments wrote.
        evaluated: The last life was an evaluation's, whose steps go nowhere.
    """
    received = _received(run)
    arrived = set(received) | _spooled(run)
    frames = read_log(log)
    promised = {
        (frame.life, frame.count) for frame in frames if not evaluated or frame.life != frames[-1].life
    }
    return Comparison(
        promised=len(promised),
        lost=len(promised - arrived),
        duplicated=sum(count - 1 for count in received.values()),
        unasked=len(arrived - promised),
        lives=len({life for life, _ in promised}),
    )


def _received(run: Path) -> Counter[Key]:
    journal = Journal(run)
    try:
        return Counter(_key(step.observation["state"]) for _, step in journal.recover())
    finally:
        journal.close()


def _spooled(run: Path) -> set[Key]:
    keys, codec = set(), Codec()
    for spool in Spool.pending(run / "spool"):
        for seq in range(spool.first_seq, spool.next_seq):
            (step,) = codec.decode_records(spool.read(seq, 0, 1).data)
            keys.add(_key(step.observation["state"]))
        spool.close(delete=False)
    return keys


def _key(observation: np.ndarray) -> Key:
    life, count = (observation.astype(np.float64) * UNIT).round().astype(int)
    return int(life), int(count)
