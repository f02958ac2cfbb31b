"""The base of every error that this project raises on purpose."""

__all__ = ["SerlError"]


class SerlError(Exception):
    """An error whose message names the cause and the next step; the command line prints it without a traceback."""
