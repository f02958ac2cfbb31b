"""Nothing grows and nothing drifts; `benchmarks/robot_soak.py` takes longer."""

import pytest

pytest.importorskip("pylibfranka")

from soak import soak


@pytest.mark.slow
def test_a_minute_leaves_memory_and_clock_as_they_were(tmp_path):
    found = soak(tmp_path, "127.0.7.14", 60.0)
    assert found.stops == []
    assert found.arm_s > 15.0
    assert found.drift_ms == 0
    assert found.worst_rate == 1.0
    assert max(found.grown_mb.values()) < 2.0, found.grown_mb
