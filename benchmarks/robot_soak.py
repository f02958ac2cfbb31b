"""Ten minutes flat out stand for a day: memory of twin, control process, server and actor, and the twin's clock.

    python benchmarks/robot_soak.py [--seconds 600] [--json FILE]

The wire twin runs in lockstep, as fast as the machine lets it, its time waiting for the actor as in training; the actor
sends random setpoints, opens and closes the gripper and resets after 50 steps. The clock is compared with the
milliseconds that the control loop has counted itself.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from _table import Row, print_table, write_json

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "servers" / "franka"))
from soak import soak

IP = "127.0.8.5"
GROWTH_MB = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="how long, in real time")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), IP, arguments.seconds)
    ticks = f"{found.arm_s:.0f} s of arm time in {found.real_s:.0f} s"
    rows = [
        Row(f"{ticks}: stops", ", ".join(found.stops) or "none", "", "none", not found.stops),
        Row("clock against the loop's count", f"{found.drift_ms} ms", "", "0 ms", found.drift_ms == 0),
        Row(
            "worst share of commands in time", f"{found.worst_rate:.2f}", "", "1.00", found.worst_rate == 1.0
        ),
    ]
    for name, grown in found.grown_mb.items():
        rows.append(
            Row(
                f"memory of the {name}, last third",
                f"{grown:+.2f} MB",
                "",
                f"< {GROWTH_MB} MB",
                grown < GROWTH_MB,
            )
        )
    passed = print_table("robot server: soak", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
