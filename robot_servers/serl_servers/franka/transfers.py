"""Resets of what lies about: pick up, put down. Both are Cartesian resets with the hand in between, each checked."""

import time
from collections.abc import Iterator

import numpy as np

from serl_servers.franka.control_link import ControlLink
from serl_servers.franka.driver import Array
from serl_servers.franka.hand import OPEN_M, Hand
from serl_servers.franka.resets import cartesian_reset, require_running
from serl_servers.front import Refusal
from serl_suite.control import ControlConfig

__all__ = ["home_hand", "pick_up", "put_down"]

HAND_S = 10.0
"""In which the fingers open or close; homing takes longest."""
EMPTY_M = 1e-3
"""Fingers closer together hold nothing."""
SLIPPED_M = 2e-3
OPEN_TOLERANCE_M = 3e-3


def pick_up(
    link: ControlLink,
    hand: Hand,
    config: ControlConfig,
    position: Array,
    quaternion: Array,
    approach_m: float,
    force_n: float | None,
) -> Iterator[None]:
    """Opens, comes from above, closes, lifts.

    Args:
        position, quaternion: Of the TCP when the fingers close. Shapes: (3,), (4,).
        approach_m: From how far above, and how far it is lifted.
        force_n: Of the grasp; None: the hand's own.

    Raises:
        Refusal: A pose was not reached, nothing was between the fingers, or it slipped on the way up.
    """
    above = position + np.array([0.0, 0.0, approach_m])
    yield from _open(link, hand)
    yield from cartesian_reset(link, config, above, quaternion)
    yield from cartesian_reset(link, config, position, quaternion, straight=True)
    hand.move(0.0, force_n)
    yield from _until_done(link, hand, "close")
    grasped_m = _held(hand, "nothing was between the fingers")
    yield from cartesian_reset(link, config, above, quaternion, straight=True)
    if abs(_held(hand, "it slipped out of the fingers") - grasped_m) > SLIPPED_M:
        raise Refusal(f"what is held has slipped by {abs(hand.width - grasped_m) * 1e3:.1f} mm on the way up")


def put_down(
    link: ControlLink,
    hand: Hand,
    config: ControlConfig,
    position: Array,
    quaternion: Array,
    approach_m: float,
) -> Iterator[None]:
    """Comes from above, opens, and leaves upwards. Arguments as `pick_up`.

    Raises:
        Refusal: There is nothing to put down, it was lost on the way, or a pose was not reached.
    """
    above = position + np.array([0.0, 0.0, approach_m])
    _held(hand, "there is nothing between the fingers to put down")
    yield from cartesian_reset(link, config, above, quaternion)
    yield from cartesian_reset(link, config, position, quaternion, straight=True)
    _held(hand, "it was lost on the way")
    yield from _open(link, hand)
    yield from cartesian_reset(link, config, above, quaternion, straight=True)


def home_hand(link: ControlLink, hand: Hand) -> Iterator[None]:
    """Has the hand find out how far it opens.

    Raises:
        Refusal: It did not answer.
    """
    hand.home()
    yield from _until_done(link, hand, "home")


def _open(link: ControlLink, hand: Hand) -> Iterator[None]:
    hand.move(OPEN_M)
    yield from _until_done(link, hand, "open")
    if hand.width < OPEN_M - OPEN_TOLERANCE_M:
        raise Refusal(f"the fingers opened only {hand.width * 1e3:.1f} mm; look for what is in their way")


def _held(hand: Hand, otherwise: str) -> float:
    """The opening [m]. Raises: Refusal, with that reason, if the hand holds nothing."""
    if not hand.is_grasped or hand.width < EMPTY_M:
        raise Refusal(otherwise)
    return hand.width


def _until_done(link: ControlLink, hand: Hand, what: str) -> Iterator[None]:
    deadline, seen = time.monotonic() + HAND_S, hand.states
    while hand.busy or hand.states < seen + 2:
        if hand.busy:  # the answer overtakes the state that shows it
            seen = hand.states
        if time.monotonic() > deadline or hand.is_gone:
            raise Refusal(f"the hand did not {what}; check it, and home it")
        yield
        require_running(link)
