"""What the arm does when somebody dies, and when it runs into something: kills and cuts at random, and a collision.

    python benchmarks/robot_faults.py [--kills 20] [--victims actor server ...] [--json FILE]

Twin (lockstep), robot server and actor are processes of their own, and the actor presses on the table and moves to and
fro. Times are the arm's own, forces and energies those of the twin's log of every millisecond; the server's word is not
taken for anything. Each kill must be named by the server and recovered from, and in the end no process and no shared
memory may be left: otherwise this ends with an error. An arm that is killed has no log.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from _table import Row, print_table, write_json

from serl_suite.control import free_space, insertion

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "servers" / "franka"))
from collision import collide
from kills import (
    FORCE_N,
    TANK_MAX_J,
    TANK_MIN_J,
    VICTIMS,
    audit,
    hunting_ground,
    kill,
)

IP, OVER = "127.0.8.3", "127.0.8.4"
STOP_S = 0.55
"""500 ms after its last setpoint the arm's motion ends; that came up to 20 ms before the kill, or after it."""
SERVER_S = 5.0


def kills(victim: str, number: int) -> list[Row]:
    """One victim again and again."""
    with tempfile.TemporaryDirectory() as folder:
        with hunting_ground(Path(folder), IP, OVER if victim == "cable to the arm" else None) as rig:
            done = []
            for seed in range(number):
                print(f"{victim}: {seed + 1} of {number}    ", end="\r", flush=True)
                done.append(kill(rig, victim, seed))
        found = audit(Path(folder) / "twin.npz", done) if victim != "arm" else []
    named_s, what = max(one.named_s for one in done), f"{victim}, {number} times"
    rows = [
        Row(
            f"{what}: named and recovered from",
            f"within {named_s:.1f} s",
            "",
            f"{SERVER_S:.0f} s",
            named_s < SERVER_S,
        )
    ]
    if found:
        ended, rest = (max(getattr(one, name) for one in found) for name in ("ended_s", "rest_s"))
        work, force = (max(getattr(one, name) for one in found) for name in ("work_j", "force_n"))
        rows += [
            Row(f"{what}: motion ended / at rest after", f"{ended:.3f} / {rest:.3f} s", "", f"<= {STOP_S} s",
                max(ended, rest) <= STOP_S),
            Row(f"{what}: energy from a tank of {TANK_MAX_J - TANK_MIN_J:.1f} J", f"{work:.2f} J", "",
                f"<= {TANK_MAX_J - TANK_MIN_J:.1f} J", work <= TANK_MAX_J - TANK_MIN_J),
            Row(f"{what}: force", f"{force:.1f} N", "", f"<= {1.1 * FORCE_N:.1f} N", force <= 1.1 * FORCE_N),
        ]  # fmt: skip
    return rows


def collisions() -> list[Row]:
    rows = []
    for name, config, step_m in (("free space", free_space(), 0.05), ("insertion", insertion(), 0.0125)):
        with tempfile.TemporaryDirectory() as folder:
            found = collide(Path(folder), IP, config, step_m)
        bound = config.stiffness[2] * config.clip_upper[2]
        rows += [
            Row(f"pushing into the table at full command, {name}", f"{found.force_n:.1f} N", "",
                f"<= {1.1 * bound:.1f} N, K x clip + 10 %", found.force_n <= 1.1 * bound),
            Row(f"the blow before, at {found.speed:.2f} m/s: peak of a millisecond", f"{found.blow_n:.0f} N",
                found.fault and f"the arm's own {found.fault}", "", None),
        ]  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each victim")
    parser.add_argument("--victims", nargs="*", choices=VICTIMS, default=VICTIMS)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    rows = collisions()
    for victim in arguments.victims:
        rows += kills(victim, arguments.kills)
    passed = print_table("robot server: kills, cuts and a collision", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
