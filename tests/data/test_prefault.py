"""Memory ahead of a writer: there in time, no more of it than promised, and nothing that was written is harmed."""

import resource
import time
from pathlib import Path

import numpy as np

from serl_suite.data.prefault import AHEAD_BYTES, Prefault


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def settled_growth(before):
    """Bytes more than `before`, once nothing has been added for a while."""
    last, seen_at, deadline = -1, time.monotonic(), time.monotonic() + 20
    while time.monotonic() < min(deadline, seen_at + 0.3):
        grown = resident_bytes() - before
        if abs(grown - last) > 1e6:
            last, seen_at = grown, time.monotonic()
        time.sleep(0.01)
    return last


def test_a_huge_array_is_touched_only_as_far_ahead_as_promised():
    before = resident_bytes()
    array = np.zeros((400_000, 50_000), np.uint8)  # 20 GB, were it all there
    prefault = Prefault([array])
    assert 0.9 * AHEAD_BYTES < settled_growth(before) < 1.2 * AHEAD_BYTES
    for row in range(3000):
        prefault.reach(row)
    written = 3000 * 50_000
    assert written + 0.4 * AHEAD_BYTES < settled_growth(before) < written + 1.2 * AHEAD_BYTES


def test_rows_written_meanwhile_are_kept():
    arrays = [np.zeros((3000, 40_000), np.uint8), np.zeros((3000, 20_000), np.uint8)]
    prefault = Prefault(arrays)
    for row in [*range(3000), *range(500)]:  # once around and on
        prefault.reach(row)
        for array in arrays:
            array[row] = 1 + row % 250
    time.sleep(0.2)
    for array in arrays:
        assert (array == (1 + np.arange(3000) % 250)[:, None]).all()


def test_nothing_to_touch():
    Prefault([]).reach(7)
