"""What happens in lockstep depends on the commands and the seed alone, to the last bit."""

import numpy as np
import pytest

TICKS = 1500


def _run(start_twin, folder, name, *arguments):
    path = folder / f"{name}.npz"
    twin = start_twin("FrankaPegInsert-v0", "--mode", "lockstep", "--log", path, *arguments)
    found = twin.client("swing", TICKS)
    twin.stop()
    with np.load(path) as log:
        return found, {key: log[key] for key in log.files}


def test_same_client_same_motion(start_twin, tmp_path):
    _, first = _run(start_twin, tmp_path, "first")
    _, again = _run(start_twin, tmp_path, "again")
    _, other = _run(start_twin, tmp_path, "other", "--seed", "1")
    for key, values in first.items():
        assert np.array_equal(values, again[key]), key
    assert not np.array_equal(first["q"], other["q"])
    assert (first["mode"] == 2).sum() == TICKS - 1  # the last command ends the motion


def test_a_bad_network_is_the_same_bad_network_again(start_twin, tmp_path):
    arguments = ("--loss", "0.1", "--seed", "5")
    found, first = _run(start_twin, tmp_path, "first", *arguments)
    _, again = _run(start_twin, tmp_path, "again", *arguments)
    for key, values in first.items():
        assert np.array_equal(values, again[key]), key
    lost = first["is_lost"][first["mode"] == 2].mean()
    assert lost == pytest.approx(1 - 0.9**2, abs=0.03)
    assert found["mean_success_rate"] == pytest.approx(1 - lost, abs=0.05)


def test_late_torques_are_used(start_twin, tmp_path):
    found, log = _run(start_twin, tmp_path, "late", "--delay-ms", "2", "--jitter-ms", "1")
    assert found["ticks"] == TICKS
    moving = log["mode"] == 2
    assert 0 < log["is_lost"][moving].mean() < 0.5
