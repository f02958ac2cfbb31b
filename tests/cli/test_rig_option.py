"""`--rig` on the command line: what becomes of it, before anything is connected to."""

from pathlib import Path

import pytest

from serl_suite.cli.main import main
from serl_suite.cli.runs import open_run
from serl_suite.nodes.command_line import train_command
from serl_suite.nodes.run_folder import RunFolder

RIGS = Path(__file__).parents[2] / "hardware" / "rigs"
TASK = "FrankaReach-v0"


def opened(tmp_path, rig, *options):
    """The configuration of a new run, as it can be read again from its folder."""
    run = tmp_path / "run"
    open_run([TASK, "--rig", str(rig), "--run", str(run), *options], prog="serl train", description="")
    return RunFolder(run).config


def test_the_rig_is_part_of_the_run(tmp_path):
    config = opened(tmp_path, RIGS / "twin_lockstep.yaml")
    assert config.rig.scene == "tcp://127.0.0.1:1339"
    assert config.actor.pace == "lockstep"
    assert train_command(config) == f"serl train {TASK} --rig {RIGS / 'twin_lockstep.yaml'}"


@pytest.mark.parametrize("options", [(), ("--actor.pace", "lockstep")])
def test_an_arm_that_does_not_wait_sets_the_pace(tmp_path, options):
    assert opened(tmp_path, RIGS / "fr3.yaml", *options).actor.pace == "realtime"


def test_a_typo_is_a_wrong_command_line(tmp_path, capsys):
    path = tmp_path / "lab.yaml"
    path.write_text("arm: 127.0.0.1\nscenes: tcp://127.0.0.1:1339\n")
    for command in (["train"], ["actor", "--connect", "tcp://127.0.0.1:1"]):
        with pytest.raises(SystemExit) as end:
            main([*command, TASK, "--rig", str(path)])
        assert end.value.code == 2
        said = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert "there is no scenes; did you mean scene?" in said


def test_one_arm_obeys_one_actor(tmp_path, capsys):
    assert main(["train", TASK, "--rig", str(RIGS / "twin.yaml"), "--actors", "2"]) == 1
    assert "an arm obeys one actor" in capsys.readouterr().err


def test_an_environment_without_rigs_says_so(tmp_path, capsys):
    run = tmp_path / "run"
    command = ["train", "Pendulum-v1", "--demos", "none", "--rig", str(RIGS / "twin.yaml"), "--run", str(run)]
    assert main(command) == 1
    assert "Pendulum-v1 cannot be made with rig" in capsys.readouterr().err
    assert not run.exists()
