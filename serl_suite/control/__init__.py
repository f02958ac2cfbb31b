"""The laws inside the control tick: arrays in, torque out, the same on the twin and on the robot."""

from serl_suite.control.faults import Fault
from serl_suite.control.parameters import (
    ControlConfig,
    InvalidControlConfig,
    JointLimits,
    Parameters,
    free_space,
    insertion,
    make_parameters,
)
from serl_suite.control.state import State, make_state, recover, reset_state
from serl_suite.control.tick import tick

__all__ = [
    "ControlConfig",
    "Fault",
    "InvalidControlConfig",
    "JointLimits",
    "Parameters",
    "State",
    "free_space",
    "insertion",
    "make_parameters",
    "make_state",
    "recover",
    "reset_state",
    "tick",
]
