"""Actor and learner as processes of their own, killed and frozen at random moments: nothing lost, nothing twice."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from serl_suite.data.journal import Journal

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from mini_actor import make_step  # noqa: E402


class Pair:
    """One learner and some actors around one run folder and one spool."""

    def __init__(self, folder, period_s=0.004):
        self.folder, self.period_s = folder, period_s
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.processes = {}

    def start(self, name):
        if name == "learner":
            arguments = [HERE / "mini_learner.py", self.folder / "run", self.port]
        else:
            address = f"tcp://127.0.0.1:{self.port}"
            arguments = [
                HERE / "mini_actor.py",
                address,
                self.folder / "spool",
                self.log(name),
                self.period_s,
            ]
        command = [sys.executable, *map(str, arguments)]
        with open(self.folder / f"{name}.err", "ab") as errors:
            self.processes[name] = subprocess.Popen(command, stderr=errors)

    def log(self, name):
        return self.folder / f"{name}.log"

    def send(self, name, what):
        self.processes[name].send_signal(what)

    def end(self, name, what=signal.SIGTERM, timeout_s=40):
        self.send(name, what)
        return self.processes[name].wait(timeout_s)

    def lines(self, *names):
        rows = [
            line.split()
            for n in names
            if self.log(n).exists()
            for line in self.log(n).read_text().splitlines()
        ]
        return [(session, int(seq), float(period), float(put)) for session, seq, period, put in rows]

    def wait_for_steps(self, name, count, timeout_s=30):
        deadline = time.monotonic() + timeout_s
        while len(self.lines(name)) < count:
            assert time.monotonic() < deadline, (self.folder / f"{name}.err").read_text()
            time.sleep(0.02)

    def wait_for_empty_spool(self, timeout_s=40):
        deadline = time.monotonic() + timeout_s
        while any(path.is_dir() for path in (self.folder / "spool").iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def check_nothing_lost_nothing_twice(self, *actors):
        """Every step whose `put` returned is in the journal once, bit for bit, in order."""
        journal = Journal(self.folder / "run")
        received = {}
        for session, step in journal.recover():
            assert step.seq == len(received.setdefault(session, []))
            expected = make_step(session, step.seq)
            assert all(
                np.array_equal(step.observation[key], expected.observation[key])
                for key in expected.observation
            )
            received[session].append(step.seq)
        journal.close()
        promised = {}
        for session, seq, _, _ in self.lines(*actors):
            promised[session] = seq + 1
        assert promised.keys() <= received.keys()
        for session, count in promised.items():
            assert count <= len(received[session]) <= count + 1  # one may have gone out as `put` was cut off
        return sum(promised.values())


@pytest.fixture
def pair(tmp_path):
    pair = Pair(tmp_path)
    yield pair
    for process in pair.processes.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments_nothing_is_lost_and_nothing_comes_twice(pair, kills):
    rng = np.random.default_rng(kills)
    names = ["learner", "actor-a", "actor-b"]
    for name in names:
        pair.start(name)
    pair.wait_for_steps("actor-a", 5)
    pair.wait_for_steps("actor-b", 5)
    for kill in range(kills):
        time.sleep(rng.uniform(0.05, 1.2))
        name = names[kill % 3] if kill < 3 else names[rng.integers(3)]
        assert pair.end(name, signal.SIGKILL) == -signal.SIGKILL
        time.sleep(rng.uniform(0.0, 0.4))
        pair.start(name)
    for name in ("actor-a", "actor-b"):
        time.sleep(1.0)
        assert pair.end(name) == 0
    pair.start("actor-a")  # takes along what the killed ones left
    time.sleep(1.5)
    assert pair.end("actor-a") == 0
    pair.wait_for_empty_spool()
    assert pair.end("learner") == 0
    assert pair.check_nothing_lost_nothing_twice("actor-a", "actor-b") > 100


@pytest.mark.parametrize("frozen_s", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_a_frozen_learner_does_not_move_the_actors_period(pair, frozen_s):
    pair.period_s = 0.05
    pair.start("learner")
    pair.start("actor")
    pair.wait_for_steps("actor", min(400, 20 * frozen_s))
    before = len(pair.lines("actor"))
    pair.send("learner", signal.SIGSTOP)
    time.sleep(frozen_s)
    during = len(pair.lines("actor"))
    pair.send("learner", signal.SIGCONT)
    assert pair.end("actor") == 0
    assert pair.end("learner") == 0
    rows = pair.lines("actor")
    assert during - before >= 0.9 * 20 * frozen_s
    calm, frozen = (np.array([row[3] for row in part]) for part in (rows[1:before], rows[before:during]))
    assert np.quantile(frozen, 0.99) <= np.quantile(calm, 0.99) + 0.05 * pair.period_s
    pair.check_nothing_lost_nothing_twice("actor")


def test_a_frozen_actor_goes_on_where_it_was(pair):
    pair.start("learner")
    pair.start("actor")
    pair.wait_for_steps("actor", 50)
    pair.send("actor", signal.SIGSTOP)
    time.sleep(7)  # longer than the heartbeat's time-out: the connection is gone
    pair.send("actor", signal.SIGCONT)
    pair.wait_for_steps("actor", 200)
    assert pair.end("actor") == 0
    assert pair.end("learner") == 0
    assert pair.check_nothing_lost_nothing_twice("actor") >= 200
