"""`serl reward`: from recording to a report, and what each command says where it cannot go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "rewards"))

from serl_suite.cli import reward
from serl_suite.cli.main import main
from serl_suite.data.episodes import read_dataset

TASK = "lamp_env:Lamp-v0"
QUICK = ["--epochs", "6", "--hidden", "32", "--target-fpr", "0.01"]


def serl(*words):
    return main(["reward", *map(str, words)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "lamp"
    assert serl("record", TASK, "--n", 10, "--out", folder) == 0
    return folder


@pytest.fixture(scope="module")
def model(data):
    assert serl("train", data, *QUICK) == 0
    return data / "classifier.safetensors"


def report(folder):
    return msgspec.json.decode((folder / "report.json").read_bytes())


def test_the_same_start_is_not_held_out_whatever_its_episode_is_called(model, tmp_path, capsys):
    assert serl("record", TASK, "--n", 2, "--noise", 0.1, "--out", tmp_path / "again") == 0
    serl("eval", model, tmp_path / "again")
    out = capsys.readouterr()
    assert "episodes left out: training has seen them" in out.out or "is new to the classifier" in out.err


def test_an_episode_that_is_there_twice_is_named(data, tmp_path, capsys):
    assert serl("record", TASK, "--n", 1, "--out", tmp_path / "again") == 0
    assert serl("train", data, tmp_path / "again", *QUICK, "--out", tmp_path / "m.safetensors") == 1
    assert "are the same episode" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("record", TASK, "--n", 0), "--n is 1 or more"),
        (("record", TASK, "--image-size", 0), "give a side of 8"),
        (("shift", "no.safetensors", "--episodes", 0), "give 1 or more"),
        (("eval", "no.safetensors"), "there is no classifier no.safetensors"),
        (("eval", __file__), "is damaged, or no classifier"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert serl(*words) == 1
    assert said in capsys.readouterr().err


def test_a_report_on_other_data_replaces_no_report(model, tmp_path):
    assert serl("record", TASK, "--n", 5, "--seed", 9, "--out", tmp_path / "more") == 0
    before = (model.parent / "classifier-report" / "report.json").read_bytes()
    assert serl("eval", model, tmp_path / "more") == 0
    assert (model.parent / "classifier-report" / "report.json").read_bytes() == before
    assert (model.parent / "classifier-report-more" / "report.json").exists()


def test_the_help_lists_the_commands(capsys):
    assert serl("--help") == 0
    text = capsys.readouterr().out
    assert all(f"serl reward {name} " in text for name in ("record", "train", "eval", "relabel", "shift"))


@pytest.mark.parametrize("command", reward.COMMANDS)
def test_each_command_teaches(command, capsys):
    with pytest.raises(SystemExit) as end:
        serl(command, "--help")
    assert end.value.code == 0
    assert f"\n  serl reward {command} " in capsys.readouterr().out


def test_a_misspelt_command_is_answered_with_near_ones(capsys):
    assert serl("trian", "x") == 2
    assert "did you mean train?" in capsys.readouterr().out


def test_record_writes_two_episodes_a_start(data):
    episodes = read_dataset(data)
    assert len(episodes) == 20
    assert [episode.seed for episode in episodes[::2]] == [episode.seed for episode in episodes[1::2]]
    assert all(episode.success for episode in episodes[::2])
    assert {step.success for episode in episodes for step in episode.steps} == {True, False}


def test_record_never_writes_among_other_files(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert serl("record", TASK, "--out", tmp_path) == 1
    assert "not empty" in capsys.readouterr().err


def test_record_without_truth_or_camera_says_so(tmp_path, capsys):
    assert serl("record", "lamp_env:SilentLamp-v0", "--n", 1, "--out", tmp_path / "a") == 1
    assert "does not tell success" in capsys.readouterr().err
    assert serl("record", TASK, "--n", 1, "--cameras", "--out", tmp_path / "b") == 1
    assert "no pictures" in capsys.readouterr().err


def test_train_reports_on_episodes_it_has_not_seen(model, data):
    folder = data / "classifier-report"
    figures = report(folder)
    assert figures["accuracy"] > 0.9
    assert figures["episodes"] == 4  # 2 of 10 starts
    page = (folder / "report.html").read_text()
    assert "none seen in training" in page
    assert page.count("data:image/png") == 1 + (folder / "wrong.png").exists()


def test_eval_gives_the_figures_of_training_again(model, data, tmp_path, capsys):
    assert serl("eval", model, "--out", tmp_path / "again") == 0
    assert report(tmp_path / "again") == report(data / "classifier-report")
    assert "held-out frames of 4 episodes" in capsys.readouterr().out.replace("\n", " ")


def test_eval_leaves_out_what_training_has_seen(model, data, tmp_path, capsys):
    assert serl("record", TASK, "--n", 2, "--seed", 1, "--out", tmp_path / "more") == 0
    assert serl("eval", model, data, tmp_path / "more", "--out", tmp_path / "report") == 0
    assert "16 episodes left out" in capsys.readouterr().out
    assert report(tmp_path / "report")["episodes"] == 8


def test_eval_of_training_data_alone_is_refused(model, data, tmp_path, capsys):
    from serl_suite.rewards.classifier import RewardModel

    name = RewardModel.load(model).card.parts.training[0]
    file = data / f"{int(name.split('/')[1]):06d}.parquet"
    assert serl("eval", model, file) == 1
    assert "is new to the classifier; record others" in capsys.readouterr().err


def test_eval_of_what_is_no_classifier(data, tmp_path, capsys):
    assert serl("eval", tmp_path / "none.safetensors") == 1
    assert "serl reward train" in capsys.readouterr().err


def test_relabel_makes_a_new_folder_and_leaves_the_old_one(model, data, tmp_path, capsys):
    before = {file: file.read_bytes() for file in data.glob("*.parquet")}
    assert serl("relabel", data, "--model", model, "--out", tmp_path / "new") == 0
    assert {file: file.read_bytes() for file in data.glob("*.parquet")} == before
    new = read_dataset(tmp_path / "new")
    assert len(new) == 20
    assert all(sum(step.reward for step in episode.steps) == float(episode.success) for episode in new)
    assert all(episode.steps[-1].ends_episode for episode in new)
    assert sum(episode.success for episode in new[::2]) >= 9
    assert serl("relabel", data, "--model", model, "--out", tmp_path / "new") == 1
    assert "not empty" in capsys.readouterr().err


def test_shift_looks_again_under_other_light(model, data, tmp_path, capsys):
    assert serl("shift", model, "--out", tmp_path) == 0
    rows = {row[0]: row[1] for row in msgspec.json.decode((tmp_path / "shift.json").read_bytes())}
    held_out = report(data / "classifier-report")
    assert rows["as recorded"]["accuracy"] == held_out["accuracy"]
    assert len(rows) == 9
    assert "light 30 % darker" in capsys.readouterr().out
    assert (tmp_path / "shift.png").stat().st_size > 10_000


def test_a_classifier_that_is_there_is_not_overwritten(model, data, capsys):
    before = model.read_bytes()
    assert serl("train", data, *QUICK, "--out", model) == 1
    assert f"{model} exists" in capsys.readouterr().err
    assert model.read_bytes() == before


def test_a_gate_on_what_is_not_there(data, tmp_path, capsys):
    assert (
        serl("train", data, *QUICK, "--gate", "tcp_pose[2] > 0", "--out", tmp_path / "other.safetensors") == 1
    )
    assert "does not observe; it observes x[0..0]" in capsys.readouterr().err


def test_no_data(tmp_path, capsys):
    assert serl("train", tmp_path) == 1
    assert "serl reward record TASK" in capsys.readouterr().err


def test_ctrl_c_ends_a_recording_after_the_episode_that_runs(tmp_path):
    folder = tmp_path / "lamp"
    words = ["-m", "serl_suite.cli.main", "reward", "record", TASK, "--n", "100000", "--out", str(folder)]
    path = os.pathsep.join([str(Path(__file__).parents[1] / "rewards"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, *words], env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE
    )
    while len(list(folder.glob("*.parquet"))) < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert b"can be trained on" in process.stdout.read()
    assert len(read_dataset(folder)) >= 3
