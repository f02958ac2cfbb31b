"""One `serl` command that is several, as in `serl_suite.cli.commands`."""

from serl_suite.cli.commands import Commands, run_command

__all__ = ["Commands", "run_command"]
