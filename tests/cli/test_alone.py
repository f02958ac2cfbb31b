"""`serl learner` and `serl actor` started by hand: they say what they wait for, how it goes, and how to go on."""

import logging
import re
import shlex
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from serl_command import SMALL, start, wait_until

from serl_suite.cli import learner_status
from serl_suite.cli.actor import _Remote, parse
from serl_suite.cli.learner import _actor_command
from serl_suite.cli.main import main
from serl_suite.nodes import actor as actor_module
from serl_suite.nodes.config import ActorConfig, LearnerConfig, TrainConfig
from serl_suite.nodes.metrics import read_metrics
from serl_suite.nodes.run_folder import RunFolder
from serl_suite.rig import read_rig

TASK = "point_env:Point-v0"
RIG = Path(__file__).parents[2] / "hardware" / "rigs" / "twin.yaml"


@contextmanager
def learner(folder, max_steps):
    """A running learner, and where it listens."""
    new = ["learner", TASK, "--demos", "none", "--run", folder, "--max-steps", max_steps, *SMALL]
    with start(*new) as process:
        yield process, re.search(r"listening on (\S+);", process.stderr.readline())[1]


def until(process, words):
    """The first line with these words."""
    return next(line for line in process.stderr if words in line)


def test_each_names_the_other_and_how_to_go_on(tmp_path):
    run, folder = tmp_path / "run", tmp_path / "actor"
    with (
        learner(run, 1_000_000) as (trainer, address),
        start("actor", TASK, "--connect", address, "--folder", folder) as actor,
    ):
        assert address in until(actor, "waiting for a learner")
        assert "run run-" in until(actor, "connected")
        until(actor, "INFO step")
        for process in (actor, trainer):
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
            assert process.returncode == 0
            assert "stopping" in err
            command = f"serl actor {TASK}" if process is actor else f"serl learner --resume {run}"
            assert command in out
    (metrics,) = folder.glob("*Point-v0-2*/actor.jsonl")  # of this start alone; the spool is of all of them
    assert read_metrics(metrics)
    assert (folder / "spool").is_dir()


def test_an_actor_says_how_it_goes_and_why_it_ended(tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.setattr(actor_module, "STATUS_PERIOD_S", 0.05)
    caplog.set_level(logging.INFO)
    with learner(tmp_path / "run", 300) as (trainer, address):
        assert main(["actor", TASK, "--connect", address, "--folder", str(tmp_path / "actor")]) == 0
        out, _ = trainer.communicate(timeout=20)
    lines = [record.getMessage() for record in caplog.records]
    assert any(re.match(r"step \d+, episode \d+, .*unacknowledged \d+", line) for line in lines)
    assert "the budget of 300 env steps is spent" in capsys.readouterr().out
    assert f"serl eval {tmp_path / 'run'}" in out


def test_the_learner_says_how_it_goes(make_run, monkeypatch, caplog):
    monkeypatch.setattr(learner_status, "STATUS_PERIOD_S", 0.05)
    caplog.set_level(logging.INFO)
    folder = make_run()
    with learner_status.status_lines(folder):
        wait_until(lambda: caplog.records)
        with (folder.metrics / "learner.jsonl").open("a") as file:
            file.write('{"env_steps": 9000, "learner/updates": 720.0, "learner/updates_owed": 12.0, ')
            file.write('"episode/success_rate": 0.85}\n')
        wait_until(lambda: "9000" in caplog.text)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "waiting for an actor"
    assert f"step 9000 of {folder.config.max_steps}, 720 updates, success 85 %, 12 updates owed" in lines


def test_the_actors_command_says_what_another_machine_cannot_know(tmp_path):
    actor = ActorConfig(pace="realtime", cameras=("front", "wrist"), image_size=64, frame_stack=2)
    config = TrainConfig(
        task="FrankaPickCube-v0", obs="pixels", reward="key", actor=actor, learner=LearnerConfig(keys="keys"),
        rig=read_rig(RIG),
    )  # fmt: skip
    folder = RunFolder.create(tmp_path / "run", config)
    words = shlex.split(_actor_command(folder, "tcp://0.0.0.0:5555"))
    replaced = {"tcp://THIS-MACHINE:5555": "tcp://10.0.0.1:5555", "KEYS": str(tmp_path)}
    chosen = parse(_Remote, [replaced.get(word, word) for word in words[2:]])
    assert (chosen.task, chosen.obs, chosen.reward) == (config.task, config.obs, config.reward)
    assert (chosen.actor, chosen.rig) == (actor, config.rig)
