"""Two processes that share their batches learn what one with whole batches does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from ranks_worker import trained  # noqa: E402

from serl_suite.agents.ranks import ALONE  # noqa: E402
from serl_suite.data.checkpoint import load_checkpoint  # noqa: E402


@pytest.mark.parametrize("what", ["states", "pictures"])
def test_two_processes_learn_what_one_learns(what, tmp_path):
    file = tmp_path / "state.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, HERE / "ranks_worker.py", what, file],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (two, _), one = load_checkpoint(file), trained(what, ALONE)
    assert two.keys() == one.keys()
    assert any(name.startswith("gradient") for name in one)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-5)
