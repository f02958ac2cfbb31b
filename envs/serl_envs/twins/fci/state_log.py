"""A record of every simulated millisecond, for energy audits and plots."""

from pathlib import Path
from typing import Any

import numpy as np
from serl_hardware.franka.model import TIMESTEP_S

from serl_envs.twins.fci.arm import Arm

__all__ = ["ROW", "StateLog"]

ROW = np.dtype(
    [
        ("time_s", "f8"),
        ("mode", "u1"),
        ("is_lost", "?"),
        ("q", "f8", (7,)),
        ("dq", "f8", (7,)),
        ("tau", "f8", (7,)),
        ("tau_external", "f8", (7,)),
        ("tau_external_estimate", "f8", (7,)),
        ("kinetic_energy", "f8"),
        ("work", "f8"),
        ("work_external", "f8"),
        ("opening", "f8"),
    ]
)
"""`mode` is the robot mode, `is_lost` a tick of a motion without a command. State at its end, torques during it:
`tau` of the motors beyond gravity, `tau_external` of everything else, truly and as the arm estimates it [N m];
`work` and `work_external` are sums since the start [J]."""

BLOCK_ROWS = 60_000


class StateLog:
    """Grows by 25 MB a minute of arm time, in memory until it is saved.

    Work is counted with the mean of the velocities before and after the tick. With the final velocity alone it is off
    by 0.5 dt^2 tau' M^-1 tau a tick, which in a long run of random torques fakes joules.

    Args:
        arm: Read after every tick.
    """

    def __init__(self, arm: Arm) -> None:
        self._arm = arm
        self._blocks = [np.zeros(BLOCK_ROWS, ROW)]
        self._used = 0
        self._work = self._external_work = 0.0
        self._dq = arm.plant.dq.copy()

    def add(self) -> None:
        """Adds a row for the tick that has just ended."""
        if self._used == BLOCK_ROWS:
            self._blocks.append(np.zeros(BLOCK_ROWS, ROW))
            self._used = 0
        arm, plant = self._arm, self._arm.plant
        external = plant.external_torque
        travelled = 0.5 * TIMESTEP_S * (self._dq + plant.dq)
        self._dq[:] = plant.dq
        self._work += float(arm.motor_torque @ travelled)
        self._external_work += float(external @ travelled)
        self._blocks[-1][self._used] = (
            plant.time_s, arm.mode, arm.is_lost, plant.q, plant.dq, arm.motor_torque, external, arm.external_estimate,
            0.5 * plant.dq @ plant.mass @ plant.dq, self._work, self._external_work, plant.width,
        )  # fmt: skip
        self._used += 1

    def rows(self) -> np.ndarray:
        """Everything so far. Shape: (ticks,) of `ROW`."""
        return np.concatenate([*self._blocks[:-1], self._blocks[-1][: self._used]])

    def save(self, path: Path) -> None:
        """Writes one array per column of `ROW`, compressed (npz)."""
        rows = self.rows()
        columns: dict[str, Any] = {name: rows[name] for name in ROW.names or ()}
        np.savez_compressed(path, **columns)
