"""Puts a twin together from a task."""

import numpy as np

from serl_envs.tasks.task import Task
from serl_envs.twins.fci.arm import Arm
from serl_envs.twins.fci.arm_packets import MOVE
from serl_envs.twins.fci.command import Command
from serl_envs.twins.fci.hand import Hand
from serl_envs.twins.fci.kinematics import from_wire
from serl_envs.twins.fci.plant import Plant

__all__ = ["make_arm"]

REHEARSED = ((2, 4), (0, 0), (1, 2))
"""Controller and motion generator, as Move numbers them: torques, joint positions, Cartesian poses."""
UNLIMITED = [10.0] * 6
"""Deviations."""


def make_arm(task: Task, seed: int = 0, *, rk4: bool = False) -> Arm:
    """Returns arm and hand in one of the task's starts.

    Args:
        task: Its scene; where it keeps its grip, the hand holds what it held at the start.
        seed: Of the start.
        rk4: Integrates by Runge-Kutta, for energy audits.
    """
    _compile(Plant(task, seed), task)
    plant = Plant(task, seed, rk4=rk4)
    return Arm(plant, _hand(plant, task))


def _hand(plant: Plant, task: Task) -> Hand:
    return Hand(plant.width, plant.opening_reference, task.grasp_force_n if task.keeps_grip else 0.0)


def _compile(plant: Plant, task: Task) -> None:
    """Rehearses a motion of each kind: a client in motion waits for a second, and the compiler takes several."""
    arm = Arm(plant, _hand(plant, task))
    for controller, generator in REHEARSED:
        arm.start_move(MOVE.pack(controller, generator, *UNLIMITED, False, *[0.0] * 7))
        packet = arm.telemetry.packet
        q, dq = packet["q_d"].astype(np.float64), np.zeros(7)
        pose = from_wire(packet["O_T_EE_d"])
        arm.tick(Command(int(packet["message_id"]), q, dq, pose, np.zeros(6), None, dq, finished=False))
        arm.stop_move()
