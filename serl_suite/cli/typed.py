"""Commands in messages as people can type them here."""

import shutil
import sys

from serl_suite.nodes.config import ActorConfig

__all__ = ["as_typed", "observing"]


def as_typed(command: str) -> str:
    """Returns a command that begins with `serl`, with the path to `serl` where only that was typed."""
    by_path = sys.argv[0].endswith("/serl") and shutil.which("serl") is None
    return sys.argv[0] + command.removeprefix("serl") if by_path else command


def observing(obs: str, actor: ActorConfig) -> list[str]:
    """Returns the options by which another command observes the same, defaults left out."""
    usual = ActorConfig()
    words = ["--obs", obs] if obs != "state" else []
    words += ["--actor.cameras", *actor.cameras] if actor.cameras else []
    words += ["--actor.image-size", str(actor.image_size)] if actor.image_size != usual.image_size else []
    words += ["--actor.frame-stack", str(actor.frame_stack)] if actor.frame_stack != usual.frame_stack else []
    return words
