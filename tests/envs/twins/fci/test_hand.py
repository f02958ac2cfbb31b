"""The hand: by an unmodified client, and by its own laws."""

import pytest
from serl_envs.tasks.peg_insert import PEG_HALF_M
from serl_envs.twins.fci.hand import Hand
from serl_envs.twins.fci.hand_packets import HandStatus
from serl_hardware.franka import fr3


def test_homing_move_grasp_and_stop(fresh_twin):
    found = fresh_twin.client("hand")
    assert found["version"] == 3
    assert found["homed"] is True
    assert found["open"] == pytest.approx(0.08, abs=1e-3)
    assert found["max_width"] == 0.08
    assert found["moved"] is True
    assert found["width"] == pytest.approx(0.03, abs=1e-3)
    assert found["grasped_nothing"] is False
    assert found["closed"] == pytest.approx(0.0, abs=1e-3)
    assert found["is_grasped"] is False
    assert found["stopped"] is True


def test_lets_go_of_the_peg_and_takes_it_again(start_twin):
    twin = start_twin("FrankaPegInsert-v0", "--mode", "lockstep")
    found = twin.client("regrasp", 2 * PEG_HALF_M)
    assert found["before"] is True
    assert (found["opened"], found["loose"]) == (True, False)
    assert (found["grasped"], found["is_grasped"]) == (True, True)
    assert found["width"] == pytest.approx(2 * PEG_HALF_M, abs=1e-3)


def _run(hand, ticks, obstacle=0.0):
    """Fingers that follow their servo at once, down to an obstacle; returns the ticks until the verdict."""
    width = hand.width
    for tick in range(ticks):
        width = max(hand.tick(width), obstacle)
        if hand.outcome is not None:
            return tick + 1
    return None


def test_a_move_takes_its_time():
    hand = Hand(0.08, 0.08, 0.0)
    assert hand.move(0.02, 0.1)
    assert hand.busy
    ticks = _run(hand, 2000)
    assert hand.outcome is HandStatus.SUCCESS
    assert ticks == pytest.approx(600, abs=20)  # 60 mm at 0.1 m/s


def test_no_faster_than_the_fingers_go():
    hand = Hand(0.08, 0.08, 0.0)
    assert hand.move(0.0, 100.0)
    assert _run(hand, 2000) >= 0.99 * 1e3 * 0.08 / (2 * fr3().finger_max_speed)


def test_a_blocked_move_is_unsuccessful():
    hand = Hand(0.08, 0.08, 0.0)
    hand.move(0.0, 0.1)
    assert _run(hand, 2000, obstacle=0.03) is not None
    assert hand.outcome is HandStatus.UNSUCCESSFUL


@pytest.mark.parametrize(
    ("width", "inner", "outer", "good"),
    [
        (0.03, 0.005, 0.005, True),
        (0.036, 0.005, 0.005, False),
        (0.036, 0.007, 0.0, True),
        (0.02, 0, 0.02, True),
    ],
)
def test_a_grasp_is_judged_by_its_tolerances(width, inner, outer, good):
    hand = Hand(0.08, 0.08, 0.0)
    assert hand.grasp(width, inner, outer, 0.1, 30.0)
    assert _run(hand, 2000, obstacle=0.03) is not None
    assert hand.outcome is (HandStatus.SUCCESS if good else HandStatus.UNSUCCESSFUL)
    assert hand.is_grasped == good


def test_stop_aborts_and_stays():
    hand = Hand(0.08, 0.08, 0.0)
    hand.move(0.0, 0.1)
    assert _run(hand, 200) is None
    at = hand.width
    hand.stop()
    assert hand.outcome is HandStatus.ABORTED
    hand.outcome = None
    _run(hand, 200)
    assert hand.width == pytest.approx(at, abs=1e-3)


@pytest.mark.parametrize(
    "values", [(-0.01, 0.1), (0.5, 0.1), (0.02, 0.0), (float("nan"), 0.1), (0.02, float("nan"))]
)
def test_impossible_moves_are_refused(values):
    hand = Hand(0.08, 0.08, 0.0)
    assert hand.move(*values) is False
    assert not hand.busy
