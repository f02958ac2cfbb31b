"""What crosses between the service and the control process. Numbers count from 1; 0 means none yet."""

import enum
from typing import Annotated, NamedTuple

from serl_servers.franka.mailbox import Floats, Integers, Text

__all__ = ["CommandRecord", "Gains", "Phase", "StateRecord"]

One = Annotated[Integers, 1]
Scalar = Annotated[Floats, 1]
Three = Annotated[Floats, 3]
Four = Annotated[Floats, 4]
Six = Annotated[Floats, 6]
Seven = Annotated[Floats, 7]


class Phase(enum.IntEnum):
    """What the control process is doing."""

    STARTING = 0
    RUNNING = 1
    BRAKING = 2
    """A fault is latched and the arm is being brought to rest."""
    STOPPED = 3
    """At rest, under the arm's own brakes; only `recover` goes on."""
    ENDED = 4


class Gains(enum.IntEnum):
    """What becomes of gains that were asked for."""

    TAKEN = 0
    TOO_DEAR = 1
    """The energy tank could not pay for them."""
    UNSTABLE = 2
    """Too high for the rate of the tick."""


class CommandRecord(NamedTuple):
    """From the service; a counter that has changed asks for something."""

    beat: One
    """Changes as long as the service is alive."""
    setpoint: One
    """Number of the setpoint."""
    following: One
    """1: the setpoint is to be tracked, and goes stale; 0: the arm holds."""
    position: Three
    quaternion: Four
    posture: Seven
    """What the nullspace is drawn to [rad]; NaN: as before."""
    gains: One
    stiffness: Six
    damping_ratio: Scalar
    clip_lower: Six
    clip_upper: Six
    episode: One
    """Fills the energy tank."""
    load: One
    load_mass: Scalar
    load_com: Three
    load_inertia: Annotated[Floats, 9]
    stop: One
    recover: One
    end: One


class StateRecord(NamedTuple):
    """From the control process, once a tick."""

    phase: One
    ticks: One
    time: Scalar
    """Robot time [s]."""
    written_ns: One
    """CLOCK_MONOTONIC when the torque of this tick had been sent."""
    q: Seven
    dq: Seven
    position: Three
    quaternion: Four
    tau_echoed: Seven
    tau_external: Seven
    tau: Seven
    """Sent."""
    jacobian: Annotated[Floats, 6, 7]
    mass: Annotated[Floats, 7, 7]
    target_position: Three
    tank_fraction: Scalar
    gamma: Scalar
    success_rate: Scalar
    setpoint: One
    """Number of the setpoint that the torque reflects."""
    setpoint_ns: One
    """CLOCK_MONOTONIC when the first such torque had been sent."""
    gains: One
    gains_refused: One
    """What became of them: a number of `Gains`."""
    stiffness: Six
    load: One
    recover: One
    """Number of the recovery that was tried last."""
    cut_off: One
    """1: nothing is heard of the arm any more, whatever had stopped it before; only a new process connects again."""
    fault: Annotated[Text, 64]
    detail: Annotated[Text, 256]
    realtime: Annotated[Text, 512]
    """What the kernel permitted, a line each."""
