"""What the controller remembers between ticks: plain arrays that the tick writes in place."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serl_suite.control.compiled import Array, compiled
from serl_suite.control.rotations import quaternion_normalized

__all__ = ["State", "make_state", "recover", "reset_state"]


class State(NamedTuple):
    """Everything a tick carries over; copy the arrays to snapshot it."""

    target_position: Array
    """The target that the law tracks, after shaping and workspace. Shape: (3,) [m]."""
    target_quaternion: Array
    """Its orientation. Shape: (4,)."""
    target_speed: Array
    """How fast the target moved in the last tick, linear and angular. Shape: (2,) [m/s, rad/s]."""
    start_q: Array
    """Joint angles at the last reset: the nullspace's posture where none is configured. Shape: (7,) [rad]."""
    last_q: Array
    """Shape: (7,) [rad]."""
    last_dq: Array
    """Shape: (7,) [rad/s]."""
    tau_sent: Array
    """The torque of the last tick, which stands in for an echo that is not finite. Shape: (7,) [Nm]."""
    tank_fraction: Array
    """T / T_max, 1 after a reset. Shape: (1,)."""
    gamma: Array
    """By what the passivity filter scaled the last torque. Shape: (1,)."""
    beta: Array
    """How much of the last move of target and stiffness the tank could pay for. Shape: (1,)."""
    wanted_share: Array
    """Written by whoever commands: the stiffness asked for, as a share of the configured one. Shape: (6,)."""
    share: Array
    """The same in force, after filter and tank; 1 after a reset. Shape: (6,)."""
    work_j: Array
    """Energy that went into the arm since the last reset or since a caller set it back. Shape: (1,)."""
    peak_power_w: Array
    """Greatest power into the arm over a tick, since the same. Shape: (1,)."""
    least_fraction: Array
    """Lowest T / T_max since the same. Shape: (1,)."""
    fault: NDArray[np.int64]
    """The latched `Fault`. Shape: (1,)."""


def make_state() -> State:
    """A state to be reset before its first tick: its target is NaN, which the tick answers with a fault."""
    return State(
        target_position=np.full(3, np.nan),
        target_quaternion=np.full(4, np.nan),
        target_speed=np.zeros(2),
        start_q=np.zeros(7),
        last_q=np.zeros(7),
        last_dq=np.zeros(7),
        tau_sent=np.zeros(7),
        tank_fraction=np.ones(1),
        gamma=np.ones(1),
        beta=np.ones(1),
        wanted_share=np.ones(6),
        share=np.ones(6),
        work_j=np.zeros(1),
        peak_power_w=np.zeros(1),
        least_fraction=np.ones(1),
        fault=np.zeros(1, dtype=np.int64),
    )


@compiled
def reset_state(state: State, q: Array, position: Array, quaternion: Array) -> None:
    """Starts an episode at the measured pose, so that the first torque has no jump; tank full, stiffness as
    configured, no fault.

    Shapes: q (7,), TCP position (3,), quaternion (4,), in the base frame.
    """
    recover(state, q, position, quaternion)
    state.start_q[:] = q
    state.last_dq[:] = 0.0
    state.tau_sent[:] = 0.0
    state.tank_fraction[0] = 1.0
    state.wanted_share[:] = 1.0
    state.share[:] = 1.0
    state.work_j[0] = 0.0
    state.peak_power_w[0] = 0.0
    state.least_fraction[0] = 1.0


@compiled
def recover(state: State, q: Array, position: Array, quaternion: Array) -> None:
    """Clears a latched fault and starts anew from the measured pose; the tank stays as it is.

    Callers log it, limit how often it may happen, and never call it by themselves.
    """
    state.target_position[:] = position
    state.target_quaternion[:] = quaternion_normalized(quaternion)
    state.target_speed[:] = 0.0
    state.last_q[:] = q
    state.gamma[0] = 1.0
    state.beta[0] = 1.0
    state.fault[0] = 0
