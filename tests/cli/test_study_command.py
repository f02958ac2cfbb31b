"""`serl study passivity`, as a process: all four arms, taken up where it was, and not mixed with other settings."""

import subprocess
import sys

import msgspec

CALL = "import sys; from serl_suite.cli.study import run; sys.exit(run(sys.argv[1:]))"
SHORT = ("--steps", "120", "--utd", "1", "--demo-episodes", "1", "--episodes", "1")
ARMS = ("agnostic-off", "agnostic-on", "aware-off", "aware-on")


def study(folder, *arguments):
    command = [sys.executable, "-c", CALL, "--folder", str(folder), *SHORT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_four_arms_then_a_table_and_nothing_is_run_twice(tmp_path):
    first = study(tmp_path, "--arms", "aware-on")
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("| aware-on |") == 1
    assert "agnostic" not in first.stdout
    kept = tmp_path / "aware-on-0.json"
    written = kept.stat().st_mtime_ns
    rest = study(tmp_path)
    assert rest.returncode == 0, rest.stderr
    assert all(f"| {arm} |" in rest.stdout for arm in ARMS)
    assert kept.stat().st_mtime_ns == written
    rows = msgspec.json.decode((tmp_path / "table.json").read_bytes())["rows"]
    assert [row["arm"] for row in rows] == list(ARMS)
    assert [row["violations"] for row in rows if row["arm"].endswith("-on")] == [0.0, 0.0]
    other = study(tmp_path, "--episodes", "2")
    assert other.returncode != 0
    assert "other settings" in other.stderr
