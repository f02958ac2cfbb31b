"""`serl report`: a run's curve and page, written again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import tyro

__all__ = ["run"]

DESCRIPTION = """Write a run's learning curve (curve.png) and one-page report (report.html) again.

  serl report runs/FrankaPickCube-v0-20260101-120000

Works at any time, also while the run trains: what is not there yet is named on the page."""


class _Arguments(msgspec.Struct, frozen=True, kw_only=True):
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""


def run(arguments: Sequence[str]) -> int:
    """Writes curve and report; 0."""
    chosen = tyro.cli(_Arguments, args=list(arguments), prog="serl report", description=DESCRIPTION)
    from serl_suite.nodes.report import write_report
    from serl_suite.nodes.run_folder import RunFolder

    print(f"Report: {write_report(RunFolder(chosen.run))}")  # noqa: T201
    return 0
