"""The `serl` command: finds the subcommand, imports only what it needs, and turns errors into one clear line."""

import difflib
import importlib
import logging
import sys
from collections.abc import Sequence

from serl_suite.errors import SerlError

__all__ = ["main"]

COMMANDS = {
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
}
"""Command, module of `serl_suite.cli` that has its `run(arguments)`, one line of help."""

EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 success, 1 failure, 2 wrong usage, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_help())  # noqa: T201
        return 0 if words else EXIT_USAGE
    command = next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), None)
    if command is None:
        print(_unknown(words), file=sys.stderr)  # noqa: T201
        return EXIT_USAGE
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        module = importlib.import_module(f"serl_suite.cli.{COMMANDS[command][0]}")
        return int(module.run(words[len(command.split()) :]))
    except SerlError as error:
        print(f"serl {command}: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  serl {name.ljust(width)}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "Let a real robot learn a skill in minutes.",
            "",
            *lines,
            "",
            "Each command explains itself: serl train --help",
            "Begin with:                   serl train FrankaPickCube-v0",
        ]
    )


def _unknown(words: Sequence[str]) -> str:
    asked = " ".join(words[:2])
    group = [name for name in COMMANDS if name.split()[0] == words[0]]
    near = group or difflib.get_close_matches(asked, COMMANDS, n=1, cutoff=0.4)
    near = near or difflib.get_close_matches(words[0], COMMANDS, n=1, cutoff=0.4)
    hint = (
        f"did you mean {' or '.join(f'`serl {name}`' for name in near)}?"
        if near
        else "`serl --help` lists them"
    )
    return f"serl: no command {asked!r}; {hint}"


if __name__ == "__main__":
    sys.exit(main())
