"""How the twin's time passes."""

from typing import Literal

__all__ = ["Pace"]

Pace = Literal["realtime", "lockstep"]
"""In lockstep a motion advances by a millisecond for every command, whenever it comes, and time stands still between
motions once everything has come to rest: what happens depends on the commands alone."""
