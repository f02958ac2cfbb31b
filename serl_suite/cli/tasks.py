"""`serl tasks`: what there is to learn."""

import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import tyro

__all__ = ["run"]

DESCRIPTION = """List the tasks that come with the suite.

  serl tasks
  serl train FrankaPickCube-v0

Any other Gymnasium id with Box or Dict observations and Box actions works as well:

  serl train Pendulum-v1 --demos none"""

OURS = "serl_envs"


class _Arguments(msgspec.Struct, frozen=True, kw_only=True):
    pass


class _Task(NamedTuple):
    """What a task class says about itself."""

    description: str
    max_steps: int | None
    has_expert: bool


def run(arguments: Sequence[str]) -> int:
    """Prints the table; 0."""
    tyro.cli(_Arguments, args=list(arguments), prog="serl tasks", description=DESCRIPTION)
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", style="bold", no_wrap=True)
    table.add_column("what is to be done", ratio=1)
    table.add_column("steps at most", justify="right", no_wrap=True)
    table.add_column("expert", no_wrap=True)
    for task_id, task_class in _registered():
        task = _describe(task_class)
        limit = "" if task.max_steps is None else str(task.max_steps)
        table.add_row(task_id, task.description, limit, "scripted" if task.has_expert else "none")
    Console(markup=False, emoji=False).print(table)
    cameras = " ".join(_cameras())
    print(f"Each learns from a sparse success reward; cameras on request: --actor.cameras {cameras}")  # noqa: T201
    print("Any other installed Gymnasium id with Box or Dict observations and Box actions works too:")  # noqa: T201
    print("  serl train Pendulum-v1 --demos none")  # noqa: T201
    return 0


def _registered() -> list[tuple[str, str]]:
    """Ids of our tasks and the class ("module:class") of each, by Gymnasium's registry alone."""
    import gymnasium

    from serl_suite.nodes.environment import load_plugins

    load_plugins()
    return [
        (task_id, str(spec.kwargs.get("task", "")))
        for task_id, spec in gymnasium.registry.items()
        if isinstance(spec.entry_point, str) and spec.entry_point.startswith(f"{OURS}.")
    ]


def _describe(task_class: str) -> _Task:
    """Reads the class's source: importing it would start a physics engine only to print a line."""
    module, _, name = task_class.partition(":")
    for node in _source(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            text = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
            limit = _constant(node.body, "max_steps")
            return _Task(text, limit if isinstance(limit, int) else None, "make_script" in methods)
    return _Task("", None, False)


def _cameras() -> tuple[str, ...]:
    cameras = _constant(_source(f"{OURS}.env").body, "CAMERAS")
    return cameras if isinstance(cameras, tuple) else ()


def _constant(body: Sequence[ast.stmt], name: str) -> object:
    """The literal that a name is bound to; None where there is none."""
    for node in body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return ast.literal_eval(node.value)
    return None


def _source(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ast.Module(body=[], type_ignores=[])
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
