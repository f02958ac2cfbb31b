"""How long `import serl_suite` and `serl --help` take in a fresh process, beside what they must not import: torch."""

import argparse
import statistics
import subprocess
import sys
import time

from _table import Row, print_table, write_json

IMPORT_TARGET_S, HELP_TARGET_S = 0.3, 0.6


def seconds(arguments: list[str], repeats: int = 7) -> float:
    """Median duration of a fresh Python process with these arguments."""
    durations = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


def main() -> int:
    """Prints the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch_s = seconds(["-c", "import torch"], repeats=3)
    import_s = seconds(["-c", "import serl_suite"])
    help_s = seconds(["-m", "serl_suite.cli.main", "--help"])
    baseline = f"import torch {torch_s:.2f} s"
    rows = [
        Row(
            "import serl_suite",
            f"{import_s:.3f} s",
            baseline,
            f"<= {IMPORT_TARGET_S} s",
            import_s <= IMPORT_TARGET_S,
        ),
        Row("serl --help", f"{help_s:.3f} s", baseline, f"<= {HELP_TARGET_S} s", help_s <= HELP_TARGET_S),
    ]
    passed = print_table("start-up", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
