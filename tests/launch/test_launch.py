"""Launch files and units: they are what their readers take, and every command in them is one of ours.

ROS 2's own `launch` is not on PyPI; the files are read as Python, and run by `ros2 launch` where there is ROS 2.
"""

import ast
import configparser
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import tyro

from serl_suite.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
UNITS = sorted((ROOT / "launch" / "systemd").glob("*.service"))
SERL = "/opt/serl/bin/serl"
ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
    "serl.commands"
]
LAUNCH_API = {
    "launch": {"LaunchDescription"},
    "launch.actions": {"DeclareLaunchArgument", "ExecuteProcess", "Shutdown"},
    "launch.substitutions": {"LaunchConfiguration"},
}
"""All of ROS 2's launch that the files may use."""
OPTIONS = {
    "DeclareLaunchArgument": {"default_value", "description"},
    "ExecuteProcess": {
        "cmd", "name", "output", "additional_env", "sigterm_timeout", "respawn", "respawn_delay", "on_exit",
    },
    "Shutdown": {"reason"},
    "LaunchDescription": set(),
    "LaunchConfiguration": set(),
}  # fmt: skip


class ParsedError(Exception):
    """A command line was taken; nothing was started."""


def parse(words, monkeypatch):
    """Has our command line parse these words, and go no further.

    Raises: SystemExit, where it refuses them.
    """
    assert words[0] == "serl"
    name = " ".join(words[1:3]) if " ".join(words[1:3]) in COMMANDS else words[1]
    module = COMMANDS[name][0] if name in COMMANDS else None
    target = ENTRY_POINTS[name.replace(" ", "-")] if module is None else f"serl_suite.cli.{module}:run"
    run = getattr(import_module(target.partition(":")[0]), target.partition(":")[2])
    real = tyro.cli

    def and_no_further(*args, **kwargs):
        raise ParsedError(real(*args, **kwargs))

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with monkeypatch.context() as patched:
        patched.setattr(tyro, "cli", and_no_further)
        try:
            with pytest.raises(ParsedError):
                run(words[1 + len(name.split()) :])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def called(node):
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None


def calls(tree, name):
    return [node for node in ast.walk(tree) if called(node) == name]


def option(call, name):
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def commands_of(path):
    """The command lines of a launch file, its arguments at their defaults."""
    tree = ast.parse(path.read_text())
    defaults = {
        ast.literal_eval(call.args[0]): ast.literal_eval(option(call, "default_value"))
        for call in calls(tree, "DeclareLaunchArgument")
    }
    used = {ast.literal_eval(call.args[0]) for call in calls(tree, "LaunchConfiguration")}
    assert used == set(defaults), "every argument is declared, and used"
    return [
        [
            defaults[ast.literal_eval(word.args[0])]
            if called(word) == "LaunchConfiguration"
            else ast.literal_eval(word)
            for word in option(call, "cmd").elts
        ]
        for call in calls(tree, "ExecuteProcess")
    ]


def read_unit(path):
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(path.read_text())
    return unit


def test_there_are_some_and_the_folder_is_no_package():
    assert len(LAUNCH_FILES) >= 4
    assert len(UNITS) >= 4
    assert not (ROOT / "launch" / "__init__.py").exists()


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_commands_of_launch_files_are_ours(path, monkeypatch):
    commands = commands_of(path)
    assert commands
    for words in commands:
        parse(words, monkeypatch)
        if "--rig" in words:
            assert (ROOT / words[words.index("--rig") + 1]).exists()


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_files_use_launch_as_it_is(path):
    tree = ast.parse(path.read_text())
    compile(tree, path.name, "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert {alias.name for alias in node.names} <= LAUNCH_API[node.module]
        assert not isinstance(node, ast.Import)
        if called(node) is not None:
            assert {keyword.arg for keyword in node.keywords} <= OPTIONS[called(node)]
    made = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert [function.name for function in made] == ["generate_launch_description"]
    assert called(made[0].body[-1].value) == "LaunchDescription"


@pytest.mark.ros
@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_files_build_their_description(path):
    pytest.importorskip("launch.actions", reason="ROS 2 brings it")
    description = runpy.run_path(str(path))["generate_launch_description"]()
    assert type(description).__name__ == "LaunchDescription"
    assert len(description.entities) == len(description.get_launch_arguments()) + len(commands_of(path))


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_commands_of_units_are_ours(path, monkeypatch):
    words = shlex.split(read_unit(path)["Service"]["ExecStart"])
    assert words[0] == SERL
    parse(["serl", *words[1:]], monkeypatch)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_let_data_be_written(path):
    service = read_unit(path)["Service"]
    assert service["KillSignal"] == "SIGINT"
    assert service["KillMode"] == "mixed"
    assert service["Restart"] == "on-failure", "what was ended on purpose stays ended"
    assert int(service["TimeoutStopSec"]) >= (60 if "actor" in path.name or "learner" in path.name else 10)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd")
def test_units_are_what_systemd_takes(tmp_path):
    for path in UNITS:
        text = path.read_text().replace(SERL, sys.executable)
        (tmp_path / path.name).write_text(text)
    instances = [re.sub("@", "@fr3", path.name) for path in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=yes", *instances],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "serl-" in line]
    assert ours == []
