"""`serl train --reward key` at a terminal: the actor is a process without one of its own."""

import fcntl
import os
import pty
import select
import sys
import termios
import time

from serl_suite.nodes.metrics import read_metrics
from serl_suite.nodes.run_folder import RunFolder

PRESS_PERIOD_S, TIMEOUT_S = 0.2, 200.0


def at_a_terminal(command, keyboard, device):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        fcntl.ioctl(device, termios.TIOCSCTTY, 0)
        for fd in (0, 1, 2):
            os.dup2(device, fd)
        os.execv(command[0], command)
    return pid


def test_a_person_at_the_terminal_judges_and_gets_it_back(tmp_path):
    keyboard, device = pty.openpty()
    before = termios.tcgetattr(device)[:4]
    budget = ["--max-steps", "200", "--demo-episodes", "2", "--evaluation.episodes", "1"]
    command = [sys.executable, "-m", "serl_suite.cli.main", "train", "FrankaReach-v0", "--reward", "key"]
    pid = at_a_terminal([*command, "--run", str(tmp_path / "run"), *budget], keyboard, device)
    deadline, pressed_at = time.monotonic() + TIMEOUT_S, 0.0
    while not os.waitpid(pid, os.WNOHANG)[0]:
        assert time.monotonic() < deadline
        if select.select([keyboard], [], [], 0.1)[0]:
            os.read(keyboard, 65536)
        if time.monotonic() - pressed_at > PRESS_PERIOD_S:
            os.write(keyboard, b"s")
            pressed_at = time.monotonic()
    episodes = read_metrics(RunFolder(tmp_path / "run").metrics / "actor.jsonl")
    assert any(row["episode/success"] for row in episodes)
    assert termios.tcgetattr(device)[:4] == before
    os.close(keyboard)
    os.close(device)
