"""The task ids, registered with Gymnasium by name alone: nothing heavy is imported until a task is made."""

from typing import TYPE_CHECKING, Any

from serl_suite.errors import SerlError

if TYPE_CHECKING:
    from serl_suite.rig import Rig

__all__ = ["TASKS", "DuplicateTask", "make_env", "register_tasks"]

TASKS = {
    "FrankaReach-v0": "serl_envs.tasks.reach:Reach",
    "FrankaPickCube-v0": "serl_envs.tasks.pick_cube:PickCube",
    "FrankaPegInsert-v0": "serl_envs.tasks.peg_insert:PegInsert",
    "FrankaBayonetLock-v0": "serl_envs.tasks.bayonet_lock:BayonetLock",
    "FrankaMaze-v0": "serl_envs.tasks.maze:Maze",
    "FrankaBinRelocate-v0": "serl_envs.tasks.bin_relocate:BinRelocate",
}
_MAKERS = {"FrankaMaze-v0": "serl_envs.compliance:make_compliant_env"}
"""Of tasks whose environment is not the plain one."""


class DuplicateTask(SerlError):
    """Two tasks claim the same id."""


def register_tasks(tasks: dict[str, str] | None = None) -> None:
    """Registers every task: on `import serl_envs`, and by whoever loads the entry points of group `gymnasium.envs`.

    Registering a task twice changes nothing.

    Args:
        tasks: Task classes ("module:class") by id; all of `TASKS` if None.

    Raises:
        DuplicateTask: The id belongs to another environment already.
    """
    import gymnasium

    for task_id, task_class in (TASKS if tasks is None else tasks).items():
        known = gymnasium.registry.get(task_id)
        if known is None:
            maker = _MAKERS.get(task_id, "serl_envs.registration:make_env")
            gymnasium.register(task_id, entry_point=maker, kwargs={"task": task_class})
        elif known.kwargs.get("task") != task_class:
            raise DuplicateTask(
                f"{task_id} is registered already, by {known.entry_point}; give the new task another id or version"
            )


def make_env(task: str, *, rig: "Rig | None" = None, **arguments: Any) -> Any:  # noqa: ANN401
    """Builds the environment of a task over the in-process twin, or over a rig's robot server.

    Args:
        task: Its class, "module:class".
        rig: What to run it on; None: the twin in this process.
        arguments: Of `RobotEnv`, as Gymnasium passes them through.
    """
    import importlib

    from serl_envs.env import RobotEnv

    module, name = task.split(":")
    instance = getattr(importlib.import_module(module), name)()
    if rig is not None:
        from serl_envs.rigs import make_robot

        return RobotEnv(make_robot(rig, instance, task), instance, **arguments)
    from serl_envs.twins.franka import FrankaTwin

    return RobotEnv(FrankaTwin(instance), instance, **arguments)
