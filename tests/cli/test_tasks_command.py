"""`serl tasks`: every registered task of ours with its description, and no physics engine started for it."""

import subprocess
import sys

from serl_suite.cli.main import main

CHECK = """
import sys
from serl_suite.cli.main import main
assert main(["tasks"]) == 0
print("imported:", [name for name in ("mujoco", "torch", "numba") if name in sys.modules])
"""


def test_lists_every_registered_task_with_a_description(capsys):
    import gymnasium

    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    ours = [
        task_id
        for task_id, spec in gymnasium.registry.items()
        if isinstance(spec.entry_point, str) and spec.entry_point.startswith("serl_envs")
    ]
    assert {"FrankaReach-v0", "FrankaPickCube-v0", "FrankaPegInsert-v0"} <= set(ours)
    for task_id in ours:
        (row,) = [line for line in out.splitlines() if task_id in line]
        assert "scripted" in row
        assert len(row.split()) >= 6
    assert "front wrist" in out
    assert "serl train Pendulum-v1 --demos none" in out


def test_starts_no_physics_engine():
    result = subprocess.run(
        [sys.executable, "-c", CHECK], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.splitlines()[-1] == "imported: []"
