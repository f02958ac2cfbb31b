"""Puts a twin together from a task."""

import numpy as np

from serl_envs.tasks.task import Task
from serl_envs.twins.fci.arm import Arm
from serl_envs.twins.fci.arm_packets import MotionGeneratorMode
from serl_envs.twins.fci.command import Command
from serl_envs.twins.fci.generators import make_generator
from serl_envs.twins.fci.hand import Hand
from serl_envs.twins.fci.impedance import CARTESIAN_STIFFNESS, cartesian_impedance
from serl_envs.twins.fci.kinematics import Kinematics
from serl_envs.twins.fci.plant import Plant

__all__ = ["make_arm"]


def make_arm(task: Task, seed: int = 0, *, rk4: bool = False) -> Arm:
    """Returns arm and hand in one of the task's starts.

    Args:
        task: Its scene; where it keeps its grip, the hand holds what it held at the start.
        seed: Of the start.
        rk4: Integrates by Runge-Kutta, for energy audits.
    """
    plant = Plant(task, seed, rk4=rk4)
    _compile(plant)
    force = task.grasp_force_n if task.keeps_grip else 0.0
    return Arm(plant, Hand(plant.width, plant.opening_reference, force))


def _compile(plant: Plant) -> None:
    """Compiles what a motion needs: a client in motion waits for a second, and the compiler takes several."""
    kinematics = Kinematics(plant.model)
    generator = make_generator(MotionGeneratorMode.CARTESIAN_POSITION, plant.q, kinematics, np.eye(4))
    assert generator is not None
    pose, jacobian = kinematics.at(plant.q, np.eye(4))
    still = np.zeros(7)
    generator.follow(Command(0, plant.q, still, pose, np.zeros(6), None, still, finished=False))
    cartesian_impedance(
        generator.reference, pose, jacobian, plant.q, plant.dq, plant.mass, CARTESIAN_STIFFNESS
    )
