"""What is wrong with a command line is said before torch is imported, which takes seconds."""

import subprocess
import sys

import pytest

CODE = """
import sys
from serl_suite.cli.main import main

try:
    main(sys.argv[1:])
except SystemExit:
    pass
sys.exit("torch" in sys.modules)
"""


@pytest.mark.parametrize(
    "command",
    [
        "train Pendulum-v1 --max-stepz 5",
        "train --help",
        "learner Pendulum-v1 --seed x",
        "actor Pendulum-v1 --conect tcp://127.0.0.1:5555",
        "actor --run",
        "eval",
        "train --resume runs/none",
        "train Pendulum-v1 --agent.num-critics 1",
    ],
)
def test_a_wrong_command_line_is_answered_without_torch(command):
    result = subprocess.run([sys.executable, "-c", CODE, *command.split()], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout or result.stderr
