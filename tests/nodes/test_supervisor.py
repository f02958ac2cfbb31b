"""Starting, watching and ending node processes; that they survive being killed is in tests/faults."""

import os
import signal
import threading
import time

import pytest

from serl_suite.nodes import supervisor as supervisor_module
from serl_suite.nodes.config import TrainConfig
from serl_suite.nodes.metrics import read_metrics
from serl_suite.nodes.processes import NodeProcess
from serl_suite.nodes.run_folder import RunFolder, RunFolderError
from serl_suite.nodes.supervisor import NodeFailed, Supervisor


@pytest.fixture
def make_folder(tmp_path):
    return lambda task: RunFolder.create(tmp_path / "run", TrainConfig(task=task, demos="none"))


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_node_that_fails_ends_the_others_and_its_last_words_are_shown(make_folder):
    folder = make_folder("NoSuchTask-v0")
    supervisor = Supervisor(folder)
    with pytest.raises(NodeFailed) as failure:
        supervisor.train(threading.Event(), lambda: None)
    assert "actor ended with exit code 1" in str(failure.value)
    assert "no task 'NoSuchTask-v0'" in str(failure.value)
    assert f"serl train --resume {folder.path}" in str(failure.value)
    assert not any(is_running(pid) for pid in supervisor.pids.values())


@pytest.mark.parametrize("moment_s", [0.0, 0.4, 4.0])
def test_a_stop_ends_both_nodes_within_two_seconds_frozen_ones_too(make_folder, moment_s):
    supervisor, stop = Supervisor(make_folder("Pendulum-v1")), threading.Event()
    began = time.monotonic()

    def stop_when_due():
        if time.monotonic() - began >= moment_s and not stop.is_set():
            if moment_s > 1.0:
                os.kill(supervisor.pids["learner"], signal.SIGSTOP)
            stop.set()
            stopped.append(time.monotonic())

    stopped = []
    assert supervisor.train(stop, stop_when_due) is None
    assert time.monotonic() - stopped[0] < 2.0
    assert not any(is_running(pid) for pid in supervisor.pids.values())


def test_a_stop_leaves_no_step_unacknowledged(make_folder):
    folder, stop = make_folder("Pendulum-v1"), threading.Event()

    def stop_after_an_episode():
        if len(read_metrics(folder.metrics / "actor.jsonl")) > 0:
            stop.set()

    assert Supervisor(folder).train(stop, stop_after_an_episode) is None
    assert not any(path.is_dir() for path in folder.spool.iterdir())


class _Stillborn:
    """A node that something kills as soon as it starts."""

    pid, returncode = 0, -signal.SIGKILL
    log = "its log"

    def terminate(self):
        pass

    def wait(self, timeout_s):
        return self.returncode

    def last_words(self):
        return "out of memory"


def test_a_node_that_is_killed_again_and_again_is_given_up(make_folder, monkeypatch):
    monkeypatch.setattr(supervisor_module, "WATCH_PERIOD_S", 0.0)
    starts = []
    supervisor = Supervisor(make_folder("Pendulum-v1"))
    monkeypatch.setattr(supervisor, "_spawn", lambda name: starts.append(name) or _Stillborn())
    with pytest.raises(NodeFailed, match=r"exit code -9; data is kept(.|\n)*out of memory"):
        supervisor.train(threading.Event(), lambda: None)
    assert len(starts) == 2 + supervisor_module.MAX_RESTARTS


def test_each_new_episode_earns_new_restarts(make_folder, monkeypatch):
    monkeypatch.setattr(supervisor_module, "WATCH_PERIOD_S", 0.0)
    folder, starts = make_folder("Pendulum-v1"), []

    def spawn(name):
        starts.append(name)
        if len(starts) <= 20:
            (folder.episodes / f"{len(starts):06d}.parquet").touch()
        return _Stillborn()

    supervisor = Supervisor(folder)
    monkeypatch.setattr(supervisor, "_spawn", spawn)
    with pytest.raises(NodeFailed):
        supervisor.train(threading.Event(), lambda: None)
    assert len(starts) == 20 + supervisor_module.MAX_RESTARTS


def test_last_words_are_the_end_of_the_log(tmp_path):
    log = tmp_path / "node.log"
    log.write_text("".join(f"line {k}\n" for k in range(100)))
    process = NodeProcess(["nonsense"], log)
    assert process.wait(30) == 2
    words = process.last_words(3)
    assert words.splitlines()[:-1] == ["line 98", "line 99"]
    assert "no command 'nonsense'" in words


def test_a_second_supervisor_of_a_run_touches_nothing(make_folder):
    run = make_folder("Toy-v0")
    run.announce("tcp://127.0.0.1:1")
    with Supervisor(run)._alone(), pytest.raises(RunFolderError, match="another `serl train`"):
        Supervisor(RunFolder(run.path)).train(threading.Event(), lambda: None)
    assert run.address.read_text() == "tcp://127.0.0.1:1"
