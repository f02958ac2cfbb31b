"""One `serl` command that is several: the word that follows says which."""

import difflib
from collections.abc import Callable, Mapping, Sequence

__all__ = ["Commands", "run_command"]

Commands = Mapping[str, tuple[Callable[[Sequence[str]], int], str]]
"""By word: what runs it, and one line of help."""


def run_command(group: str, commands: Commands, arguments: Sequence[str]) -> int:
    """Runs one of the commands; 0 success, 1 failure, 2 wrong usage.

    Args:
        group: What precedes the word, such as `serl robot`.
        commands: To choose from.
        arguments: The word and what follows it; nothing, -h or --help lists the commands.

    Raises:
        SerlError: Says what is wrong and what to do.
    """
    word = arguments[0] if arguments else "--help"
    if word in ("-h", "--help"):
        width = max(map(len, commands))
        for name, (_, text) in commands.items():
            print(f"  {group} {name.ljust(width)}  {text}")  # noqa: T201
        return 0 if arguments else 2
    if word not in commands:
        near = difflib.get_close_matches(word, commands, n=1, cutoff=0.4) or list(commands)
        print(f"{group}: no command {word!r}; did you mean {' or '.join(near)}?")  # noqa: T201
        return 2
    return commands[word][0](arguments[1:])
