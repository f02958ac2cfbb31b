"""Gymnasium tasks for the Franka arm and its twin. Importing this package registers the task ids, and nothing more."""

from serl_envs.registration import TASKS, DuplicateTask, register_tasks

__all__ = ["TASKS", "DuplicateTask", "register_tasks"]

register_tasks()
