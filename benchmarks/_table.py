"""What every benchmark prints and writes: rows of measured figures beside their targets."""

import json
import os
import platform
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["Row", "device_row", "print_table", "write_json"]


class Row(NamedTuple):
    """One measured claim; figures carry their unit in the text, `passed` is None where no target is set."""

    what: str
    measured: str
    baseline: str
    target: str
    passed: bool | None


def device_row(device: str) -> Row:
    """What torch computed on, its version and the day."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else device
    versions = f"torch {torch.__version__}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    return Row("device", f"{name}, {versions}", "", "", None)


def print_table(title: str, rows: list[Row]) -> bool:
    """Prints the rows as a table and returns whether every row with a target met it."""
    header = Row("what", "ours", "baseline, same run", "must show", None)
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(4)]
    print(f"\n{title}")
    for row in [header, *rows]:
        verdict = {None: "", True: "ok", False: "MISSED"}[row.passed]
        print(
            "  ".join(str(cell).ljust(width) for cell, width in zip(row[:4], widths, strict=True))
            + f"  {verdict}"
        )
    return all(row.passed is not False for row in rows)


def write_json(path: str | None, rows: list[Row]) -> None:
    """Writes the rows with the machine they were measured on, where a path is given."""
    if path is None:
        return
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    Path(path).write_text(
        json.dumps({"machine": machine, "rows": [row._asdict() for row in rows]}, indent=2) + "\n"
    )
