"""What people get wrong, and what a machine runs out of: each is an error that names cause and remedy, nothing more.

No error shows a traceback, loses data or leaves a process behind.
"""

import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "integration"))
from serl_command import SMALL, nodes_of, run, start  # noqa: E402

from serl_suite.cli.main import main  # noqa: E402
from serl_suite.data.episodes import Episode, read_dataset, write_episode  # noqa: E402
from serl_suite.data.journal import Journal  # noqa: E402
from serl_suite.nodes import actor as actor_module  # noqa: E402
from serl_suite.nodes.config import TrainConfig  # noqa: E402
from serl_suite.nodes.run_folder import RunFolder  # noqa: E402
from serl_suite.wire.keys import make_keys, server_keys  # noqa: E402
from serl_suite.wire.messages import Step  # noqa: E402
from serl_suite.wire.router import Router  # noqa: E402
from serl_suite.wire.spaces import ArraySpec, EnvSpec  # noqa: E402

POINT = ["train", "point_env:Point-v0", "--demo-episodes", 2, "--max-steps", 200, *SMALL, "--run"]
NAN = [word if word != "point_env:Point-v0" else "point_env:PointNan-v0" for word in POINT]


def check(code, error, *words, expected=1):
    """The exit code, one clear message with these words, and no traceback."""
    assert code == expected, error
    assert "Traceback" not in error
    flat = re.sub(r"[\s│]+", " ", error)
    for word in words:
        assert word in flat, error


@pytest.fixture
def fails(capsys):
    """Runs a command in this process and checks how it fails."""

    def run_main(arguments, *words, expected=1):
        try:
            code = main([str(word) for word in arguments])
        except SystemExit as exit_:
            code = exit_.code
        printed = capsys.readouterr()
        check(code, printed.out + printed.err, *words, expected=expected)

    return run_main


@pytest.fixture
def demos(tmp_path):
    """A folder with one demonstration of a task with other observations than any here."""
    spec = EnvSpec(
        task="Other-v0",
        observation={"force": ArraySpec(shape=(7,), dtype="float32")},
        action=ArraySpec(shape=(1,), dtype="float32", low=-1.0, high=1.0),
    )
    steps = [
        Step(
            seq=k,
            episode=0,
            index=k,
            observation={"force": np.zeros(7, np.float32)},
            action=np.zeros(1, np.float32) if k else None,
            terminated=k == 3,
        )
        for k in range(4)
    ]
    folder = tmp_path / "demos"
    write_episode(folder / "000000.parquet", Episode(session_id="s", number=0, spec=spec, steps=steps))
    return folder


def test_an_unknown_task(fails, tmp_path):
    folder = tmp_path / "run"
    fails(
        ["train", "FrankaReech-v0", "--run", folder],
        "no task 'FrankaReech-v0'",
        "did you mean FrankaReach-v0",
    )
    fails(["train", "nowhere:Task-v0", "--run", folder], "no task 'nowhere:Task-v0'", "serl tasks")
    assert not folder.exists()


def test_a_misspelt_option_and_a_misspelt_command(fails, tmp_path):
    arguments = ["train", "Pendulum-v1", "--max-stepz", 5, "--run", tmp_path / "run"]
    fails(arguments, "Unrecognized options: --max-stepz", "--max-steps", expected=2)
    fails(["trian", "Pendulum-v1"], "did you mean `serl train`?", expected=2)
    assert not (tmp_path / "run").exists()


def test_a_setting_out_of_its_range(fails, tmp_path):
    arguments = ["train", "Pendulum-v1", "--agent.num-critics", 1, "--run", tmp_path / "run"]
    fails(arguments, "critic_subset is 2", "between 1 and num_critics=1")


@pytest.mark.parametrize("command", ["train", "learner"])
@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_corrupt_demonstration_file(fails, demos, tmp_path, command, damage):
    file = demos / "000000.parquet"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] if damage == "cut" else b"\0" * 500)
    arguments = [command, "Pendulum-v1", "--demos", demos, "--run", tmp_path / "run"]
    fails(arguments, f"{file} is no whole episode", "restore it from a copy, or move it away")
    assert not (tmp_path / "run").exists()
    assert file.exists()


def test_no_demonstration_where_one_was_said_to_be(fails, tmp_path):
    (tmp_path / "empty").mkdir()
    for source in ("empty", "absent"):
        arguments = ["train", "Pendulum-v1", "--demos", tmp_path / source, "--run", tmp_path / "run"]
        fails(arguments, str(tmp_path / source))
    assert not (tmp_path / "run").exists()


def test_demonstrations_with_other_spaces(fails, demos, tmp_path):
    arguments = ["train", "Pendulum-v1", "--demos", demos, "--run", tmp_path / "run"]
    fails(arguments, "000000.parquet does not fit Pendulum-v1", "'force'", "leave this file out")
    assert not (tmp_path / "run").exists()


def test_a_port_in_use(fails, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        folder = tmp_path / "run"
        arguments = ["learner", "Pendulum-v1", "--demos", "none", "--learner.bind", address, "--run", folder]
        fails(arguments, f"{address} is in use", "another port", "bind")
        assert not folder.exists()


def test_an_address_off_loopback_without_keys(fails, tmp_path):
    arguments = ["learner", "Pendulum-v1", "--learner.bind", "tcp://0.0.0.0:0", "--run", tmp_path / "run"]
    fails(arguments, "no keys", "serl keys make learner")


def test_an_unreachable_learner(fails, tmp_path, monkeypatch):
    monkeypatch.setattr(actor_module, "CONNECT_TIMEOUT_S", 0.3)
    arguments = ["actor", "Pendulum-v1", "--connect", "tcp://127.0.0.1:9", "--folder", tmp_path / "actor"]
    fails(
        arguments,
        "no answer from a learner at tcp://127.0.0.1:9",
        "nothing listens there",
        "serl learner Pendulum-v1",
    )


@pytest.mark.parametrize("keys", ["none", "strange"])
def test_a_learner_that_wants_other_keys(fails, tmp_path, monkeypatch, keys):
    monkeypatch.setattr(actor_module, "CONNECT_TIMEOUT_S", 1.0)
    for folder in ("here", "strange"):
        for name in ("learner", "actor"):
            make_keys(name, tmp_path / folder)
    router = Router("tcp://127.0.0.1:0", server_keys(folder=tmp_path / "here"), 1000)
    arguments = ["actor", "Pendulum-v1", "--connect", router.address, "--folder", tmp_path / "actor"]
    if keys == "none":
        fails(arguments, f"no answer from a learner at {router.address}", "wants keys (give --keys)")
    else:
        fails([*arguments, "--keys", tmp_path / "strange"], "learner.public here must be that learner's")
    router.close()


def test_an_address_where_no_machine_is(fails, tmp_path, monkeypatch):
    monkeypatch.setattr(actor_module, "CONNECT_TIMEOUT_S", 0.3)
    make_keys("learner", tmp_path / "keys")
    make_keys("actor", tmp_path / "keys")
    arguments = ["actor", "Pendulum-v1", "--connect", "tcp://no-such-machine.invalid:5555"]
    arguments += ["--keys", tmp_path / "keys", "--folder", tmp_path / "actor"]
    fails(arguments, "no machine is called no-such-machine.invalid")


def test_a_waiting_actor_says_what_it_waits_for(tmp_path):
    folder = tmp_path / "actor"
    with start("actor", "Pendulum-v1", "--connect", "tcp://127.0.0.1:9", "--folder", folder) as process:
        said = []
        while not said or "nothing listens there" not in said[-1]:
            said.append(process.stderr.readline())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert "waiting for a learner at tcp://127.0.0.1:9" in said[0]
    assert process.returncode == 0
    assert "stopping" in err
    assert "serl actor Pendulum-v1 --connect tcp://127.0.0.1:9" in out


@pytest.mark.parametrize("command", ["train", "learner"])
def test_a_run_folder_that_exists_already(fails, tmp_path, command):
    folder = RunFolder.create(tmp_path / "run", TrainConfig(task="Pendulum-v1"))
    arguments = [command, "Pendulum-v1", "--demos", "none", "--run", folder.path]
    fails(arguments, f"{folder.path} exists already", f"`serl {command} --resume {folder.path}`")


def test_two_learners_on_one_run(fails, tmp_path):
    folder = RunFolder.create(tmp_path / "run", TrainConfig(task="Pendulum-v1", demos="none"))
    journal = Journal(folder.path)
    fails(["learner", "--resume", folder.path], f"another process writes to {folder.path}", "stop it")
    journal.close()


def test_an_observation_that_is_nan(tmp_path):
    folder = tmp_path / "run"
    code, _, error = run(*NAN, folder, "--demos", "none")
    check(code, error, "actor ended with exit code 1", "'x' holds nan", f"--resume {folder}")
    assert nodes_of(folder) == []
    journal = Journal(folder)
    kept = [step for _, step in journal.recover()]
    journal.close()
    assert sum(step.index > 0 for step in kept) == 69
    assert all(np.isfinite(step.observation["x"]).all() for step in kept)


def test_a_policy_that_has_diverged(tmp_path):
    folder = tmp_path / "run"
    code, _, error = run(*POINT, folder, "--agent.learning-rate", 1e38)
    check(code, error, "ended with exit code 1", "diverged", f"--resume {folder}")
    assert nodes_of(folder) == []
    assert read_dataset(folder / "demos")


@pytest.fixture
def small_disk(tmp_path):
    """A file system with a megabyte beside the spool's first segment; None where making one takes rights we lack."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(small_disk, tmp_path):
    """Where no small disk can be made, a limit on the size of files stands in for it."""
    folder = (small_disk or tmp_path) / "run"
    limit = None if small_disk else partial(resource.setrlimit, resource.RLIMIT_FSIZE, (30_000, 30_000))
    code, _, error = run(*POINT, folder, "--max-steps", 20000, before=limit)
    check(code, error, *(["disk is full"] if small_disk else []), "free space", f"--resume {folder}")
    assert nodes_of(folder) == []
    if small_disk:
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    journal = Journal(folder)
    by_session = {}
    for session, step in journal.recover():
        by_session.setdefault(session, []).append(step.seq)
    journal.close()
    assert all(seqs == list(range(len(seqs))) for seqs in by_session.values())
    assert sum(map(len, by_session.values())) > 10


def test_a_run_folder_of_another_version(fails, tmp_path):
    folder = RunFolder.create(tmp_path / "run", TrainConfig(task="Pendulum-v1"))
    path = folder.path / "run.json"
    info = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(info | {"format": 99}))
    for arguments in (
        ["train", "--resume"],
        ["learner", "--resume"],
        ["actor", "--run"],
        ["eval"],
        ["report"],
    ):
        fails(
            [*arguments, folder.path], "run format 99", "this version reads format 1", "Install that version"
        )
    assert path.exists()


def test_a_folder_that_is_no_run_and_one_that_is_there_already(fails, tmp_path):
    folder = RunFolder.create(tmp_path / "pick-1", TrainConfig(task="Pendulum-v1"))
    fails(["train", "--resume", tmp_path / "pick-2"], "not a run folder", f"did you mean {folder.path}?")
    fails(["train", "Pendulum-v1", "--run", folder.path], "exists already", f"--resume {folder.path}")
    assert (folder.path / "config.yaml").exists()
    config = folder.path / "config.yaml"
    config.write_text(config.read_text().replace("max_steps", "max_stepz"))
    fails(["train", "--resume", folder.path], "config.yaml", "max_stepz", "mend it")
