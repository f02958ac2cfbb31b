"""The `serl` command: finds the subcommand, imports only what it needs, and turns errors into one clear line."""

import contextlib
import difflib
import importlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from serl_suite.errors import SerlError

__all__ = ["main"]

COMMANDS: Mapping[str, tuple[str | None, str]] = {
    "train": (
        "train",
        "teach a robot a task on this machine: demonstrations, learner, actor, evaluation, report",
    ),
    "learner": ("learner", "run a learner alone, on the machine with the GPU"),
    "actor": ("actor", "run an actor alone, on the robot's workstation"),
    "eval": ("evaluate", "evaluate a run's policy on fresh episodes, and film it"),
    "report": ("report", "write a run's curve and one-page HTML report again"),
    "tasks": ("tasks", "list the tasks that come with the suite"),
    "demo record": ("demo_record", "record demonstrations"),
    "data inspect": ("data_inspect", "show what is in episode files, demonstrations or a run"),
    "keys": ("keys", "make and list the keys that learner and actor need off loopback"),
    "study passivity": ("study", "energy constraint and passivity filter: four arms, a table and plots"),
    "twin franka": (
        None,
        "a Franka arm in MuJoCo at the ports of a real one: what connects to the arm connects to it",
    ),
    "camera": (None, "cameras of a rig: list, view, record, calibrate"),
    "reward": ("reward", "success classifiers: record pictures, train, report, relabel a run"),
    "encoder pretrain": ("encoder_pretrain", "train an image backbone on recorded episodes, without labels"),
    "doctor": (None, "check a rig: machine, devices, arm, programs; says what to do about each"),
    "robot": (None, "the robot server of an arm, and its operator: status, stop, recover, reset, jog"),
    "ros2": (None, "ROS 2: a robot server on topics, or an arm that ROS 2 control drives as a robot server"),
}
"""Command, module of `serl_suite.cli` that has its `run(arguments)`, one line of help. Without a module, another
package has it: the entry point in the group `serl.commands` that is named like the command, "-" for the space."""

CLOCK = "%Y-%m-%d %H:%M:%S"
HELP = ("-h", "--help")
EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 success, 1 failure, 2 wrong usage, 130 interrupted.

    Given no arguments, it takes those of the process, and ends the process instead of returning.
    """
    if arguments is not None:
        return _run(list(arguments))
    code = EXIT_ERROR
    with contextlib.suppress(BrokenPipeError):  # whoever read the output has gone
        code = _run(sys.argv[1:])
        sys.stdout.flush()
        sys.stderr.flush()
    # All is closed by now; taking torch down in order costs up to a second, after a Ctrl-C, too.
    os._exit(code)


def _run(words: list[str]) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0] in HELP:
        print(_help(COMMANDS))  # noqa: T201
        return 0 if words else EXIT_USAGE
    if words[0] == "--version":
        print(f"serl-suite {importlib.metadata.version('serl-suite')}")  # noqa: T201
        return 0
    if words[1:2] and words[1] in HELP and (group := _group(words[0])):
        print(_help(group))  # noqa: T201
        return 0
    command = next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), None)
    if command is None:
        print(_unknown(words), file=sys.stderr)  # noqa: T201
        return EXIT_USAGE
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt=CLOCK)
    try:
        return _load(command)(words[len(command.split()) :])
    except SerlError as error:
        print(f"serl {command}: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _load(command: str) -> Callable[[list[str]], int]:
    module = COMMANDS[command][0]
    if module is not None:
        run: Callable[[list[str]], int] = importlib.import_module(f"serl_suite.cli.{module}").run
        return run
    name = command.replace(" ", "-")
    for entry in importlib.metadata.entry_points(group="serl.commands", name=name):
        run = entry.load()
        return run
    raise SerlError(
        f"no installed package brings `serl {command}`; install serl-suite again: pip install -e ."
    )


def _group(word: str) -> Mapping[str, tuple[str | None, str]]:
    """The commands of two words that begin with this one."""
    return {name: entry for name, entry in COMMANDS.items() if name.startswith(f"{word} ")}


def _help(commands: Mapping[str, tuple[str | None, str]]) -> str:
    width = max(map(len, commands))
    lines = [f"  serl {name.ljust(width)}  {text}" for name, (_, text) in commands.items()]
    footer = [f"Each command explains itself: serl {next(iter(commands))} --help"]
    if commands is COMMANDS:
        footer.append("Begin with:                   serl train FrankaPickCube-v0")
    return "\n".join(["Let a real robot learn a skill in minutes.", "", *lines, "", *footer])


def _unknown(words: Sequence[str]) -> str:
    asked = " ".join(words[:2])
    near = list(_group(words[0])) or difflib.get_close_matches(asked, COMMANDS, n=1, cutoff=0.4)
    near = near or difflib.get_close_matches(words[0], COMMANDS, n=1, cutoff=0.4)
    hint = (
        f"did you mean {' or '.join(f'`serl {name}`' for name in near)}?"
        if near
        else "`serl --help` lists them"
    )
    return f"serl: no command {asked!r}; {hint}"


if __name__ == "__main__":
    main()
