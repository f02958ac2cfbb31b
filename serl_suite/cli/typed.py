"""Commands in messages as people can type them here."""

import shutil
import sys

__all__ = ["as_typed"]


def as_typed(command: str) -> str:
    """Returns a command that begins with `serl`, with the path to `serl` where only that was typed."""
    by_path = sys.argv[0].endswith("/serl") and shutil.which("serl") is None
    return sys.argv[0] + command.removeprefix("serl") if by_path else command
