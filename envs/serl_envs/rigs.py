"""A task on a rig: the robot behind the rig's server, if the rig can do what the task asks for."""

from collections.abc import Iterator
from contextlib import contextmanager

import mujoco
import numpy as np

from serl_envs.registration import TASKS
from serl_envs.remote_arm import RemoteArm
from serl_envs.remote_cameras import RemoteCameras
from serl_envs.remote_scene import RemoteScene, TwinUnreachable
from serl_envs.remote_twin import RemoteTwin
from serl_envs.tasks.task import Task
from serl_envs.twins.franka import control_config
from serl_envs.twins.loop import ARM
from serl_envs.twins.scene import Scene, build_model
from serl_suite.errors import SerlError
from serl_suite.rig import Rig
from serl_suite.wire.keys import client_keys
from serl_suite.wire.robot_client import RobotUnreachable

__all__ = ["UnfitRig", "make_robot"]


FINGERS = 2


class UnfitRig(SerlError):
    """The task needs what the rig does not have or not allow."""


def make_robot(rig: Rig, task: Task, task_class: str) -> RemoteArm:
    """Connects to the rig's programs.

    Args:
        rig: The rig.
        task: The task.
        task_class: As it is registered, "module:class".

    Raises:
        UnfitRig: The rig does not fit the task; says what to change.
        KeysError: A key of the rig's is missing.
        TwinUnreachable: No twin answers; names the command that starts it.
        RobotUnreachable: No robot server answers; likewise.
        OtherScene: The twin has the scene of another task.
    """
    name = next((task_id for task_id, known in TASKS.items() if known == task_class), task_class)
    _check(rig, task, name)
    keys = client_keys(rig.keys, rig.server_key) if rig.keys is not None else None
    gains, cameras = control_config(task), RemoteCameras.of_rig(rig, keys)
    if rig.scene is None:
        scene = _marks(rig, task, name)
        with _named(rig):
            return RemoteArm(scene, rig.server, keys, gains=gains, cameras=cameras)
    there = _twin_scene(rig, rig.scene, task, name)
    try:
        with _named(rig):
            return RemoteTwin(there, rig.server, keys, gains=gains, cameras=cameras)
    except SerlError:
        there.close()
        raise


def _marks(rig: Rig, task: Task, name: str) -> Scene:
    """The scene of a task that has no things but marks."""
    model = build_model(task.add_objects)
    if model.njnt > ARM + FINGERS:
        raise UnfitRig(
            f"{name} observes where its things are and puts them back itself; {rig.source} has no scene to tell it. A "
            "wire twin has one (scene: tcp://127.0.0.1:1339); on an arm of metal, cameras and people have to"
        )
    return Scene(model, mujoco.MjData(model))


def _twin_scene(rig: Rig, address: str, task: Task, name: str) -> RemoteScene:
    mode = " --mode lockstep" if rig.pace == "lockstep" else ""
    start = f"serl twin franka --port-ip {rig.arm} --task {name}{mode}"
    try:
        scene = RemoteScene(task, name, address)
    except TwinUnreachable as error:
        raise TwinUnreachable(f"no twin answers at {address}; start it: {start}") from error
    if rig.pace == "lockstep" and not scene.is_lockstep:
        scene.close()
        raise UnfitRig(
            f"the twin at {address} runs in real time, and {rig.source} says pace: lockstep; start it again: {start}"
        )
    return scene


@contextmanager
def _named(rig: Rig) -> Iterator[None]:
    """A server that does not answer is named with the command that starts it."""
    try:
        yield
    except RobotUnreachable as error:
        raise RobotUnreachable(f"no robot server answers at {rig.server}; start it: {rig.serve}") from error


def _check(rig: Rig, task: Task, name: str) -> None:
    if not rig.hand:
        raise UnfitRig(f"{name} needs a hand, and {rig.source} has none")
    limits, box = rig.limits, task.workspace
    for what, asked, most in (
        ("stiffness_n_per_m", task.stiffness_n_per_m, limits.stiffness_n_per_m),
        ("force_n", task.max_force_n, limits.force_n),
    ):
        if asked > most:
            raise UnfitRig(f"{name} asks for {what} {asked:g}, and limits.{what} in {rig.source} is {most:g}")
    lower, upper = rig.control.box_lower, rig.control.box_upper
    if (np.array(box.lower) < lower).any() or (np.array(box.upper) > upper).any():
        raise UnfitRig(
            f"{name} moves within {box.lower} to {box.upper} m, and the workspace in {rig.source} is {lower} to "
            f"{upper}; widen control.box_lower and control.box_upper if there is room"
        )
