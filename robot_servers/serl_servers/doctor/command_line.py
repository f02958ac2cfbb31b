"""`serl doctor`: checks a rig, a line each."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import msgspec
import tyro

from serl_servers.doctor.devices import check_devices
from serl_servers.doctor.machine import check_machine
from serl_servers.doctor.programs import check_programs
from serl_suite.rig import read_rig

__all__ = ["run"]

DESCRIPTION = """Check a rig, and say what to do about what is wrong.

  serl doctor --rig hardware/rigs/twin.yaml

It looks at this machine (kernel, permissions, processor, disk, packages), at what is plugged in, at the robot server
and, where none has it, at the arm itself; nothing moves. ok: as it should be. warning: it works, less well. failed: it
does not work, and the exit code is 1."""


class _Arguments(msgspec.Struct, frozen=True, kw_only=True):
    rig: Path
    """The rig's file."""


def run(arguments: Sequence[str]) -> int:
    """Prints a line for each check; 0, or 1 where something failed.

    Raises:
        BadRig: The file is no rig, or an impossible one; says why.
    """
    path = tyro.cli(_Arguments, args=list(arguments), prog="serl doctor", description=DESCRIPTION).rig
    rig = read_rig(path)
    print(f"{'ok':8} {'rig':14} {path}")  # noqa: T201
    bad = False
    for level, what, text in chain(check_machine(rig, Path()), check_devices(rig), check_programs(rig)):
        print(f"{level:8} {what:14} {text}", flush=True)  # noqa: T201
        bad = bad or level == "failed"
    return 1 if bad else 0
