"""In real time: as fast as the clock, no faster, and in time for the client."""

import os

import pytest


@pytest.mark.slow
def test_a_minute_of_torque_control(start_twin):
    """On two idle cores; a busy machine loses more."""
    twin = start_twin("FrankaPegInsert-v0", "--mode", "realtime")
    found = twin.client("swing", 60_000, timeout=120)
    assert found["ticks"] == 60_000
    assert found["mean_success_rate"] >= 0.97
    assert 59.9 < found["wall_s"] < 66
    twin.stop()


def test_seconds_are_seconds(start_twin):
    twin = start_twin("FrankaReach-v0", "--mode", "realtime")
    if os.geteuid() == 0:
        assert os.sched_getscheduler(twin.process.pid) == os.SCHED_FIFO
        assert (
            os.sched_getscheduler(start_twin("FrankaReach-v0", "--mode", "lockstep").process.pid)
            == os.SCHED_OTHER
        )
        urgent = start_twin("FrankaReach-v0", "--mode", "lockstep", "--urgent")
        assert os.sched_getscheduler(urgent.process.pid) == os.SCHED_FIFO
    found = twin.client("swing", 2000)
    assert 1.95 < found["wall_s"] < 4
    twin.stop()


@pytest.mark.slow
def test_lockstep_is_half_again_as_fast_as_real_time(start_twin):
    twin = start_twin("FrankaPegInsert-v0", "--mode", "lockstep")
    found = twin.client("swing", 60_000, timeout=120)
    assert found["mean_success_rate"] == 1.0
    assert found["irregular"] == 0
    assert 60 / found["wall_s"] >= 1.5
    twin.stop()


def test_film_and_log_are_there_in_the_end(start_twin, tmp_path):
    film, log = tmp_path / "film.mp4", tmp_path / "log.npz"
    twin = start_twin("FrankaReach-v0", "--mode", "lockstep", "--render", film, "--log", log)
    twin.client("swing", 1000)
    twin.stop()
    assert film.stat().st_size > 10_000
    assert log.stat().st_size > 100_000
