"""What a check has found."""

from typing import Literal, NamedTuple

__all__ = ["Finding", "failed", "ok", "warning"]


class Finding(NamedTuple):
    """One line for a person."""

    level: Literal["ok", "warning", "failed"]
    """warning: it works, less well; failed: it does not."""
    what: str
    text: str
    """What was found; unless all is well, what to do as well."""


def ok(what: str, text: str) -> Finding:
    return Finding("ok", what, text)


def warning(what: str, text: str) -> Finding:
    return Finding("warning", what, text)


def failed(what: str, text: str) -> Finding:
    return Finding("failed", what, text)
