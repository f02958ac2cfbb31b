"""`serl demo record`: keeps what succeeded, overwrites nothing, and says what to do instead."""

import pytest

from serl_suite.cli.main import main
from serl_suite.data.episodes import read_dataset
from serl_suite.nodes.environment import Environment


def record(folder, *more, task="Toy-v0"):
    return main(["demo", "record", task, "--scripted", "--episodes", "4", "--out", str(folder), *more])


def test_records_as_many_successes_as_asked(toy_tasks, tmp_path, capsys):
    assert record(tmp_path / "demos") == 0
    episodes = read_dataset(tmp_path / "demos")
    assert len(episodes) == 4
    assert all(episode.success for episode in episodes)
    assert {step.source for episode in episodes for step in episode.steps} == {"scripted"}
    assert f"--demos {tmp_path / 'demos'}" in capsys.readouterr().out.replace("\n", "")


def test_the_seed_makes_the_demonstrations(toy_tasks, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        record(tmp_path / name, "--seed", seed)
    actions = {
        name: [step.action for episode in read_dataset(tmp_path / name) for step in episode.steps[1:]]
        for name in "abc"
    }
    assert actions["a"] == actions["b"]
    assert actions["a"] != actions["c"]


def test_never_writes_among_other_files(toy_tasks, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert record(tmp_path) == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_without_scripted_it_says_what_there_is(toy_tasks, tmp_path, capsys):
    assert main(["demo", "record", "Toy-v0", "--out", str(tmp_path / "demos")]) == 1
    assert "serl demo record Toy-v0 --scripted" in capsys.readouterr().err


def test_a_task_without_an_expert(tmp_path, capsys, toy_tasks):
    assert record(tmp_path / "demos", task="MountainCarContinuous-v0") == 1
    assert "no scripted expert" in capsys.readouterr().err


def test_an_unknown_task_is_answered_with_near_ones(tmp_path, capsys, toy_tasks):
    assert record(tmp_path / "demos", task="Toyy-v0") == 1
    assert "did you mean" in capsys.readouterr().err


def test_an_expert_that_keeps_failing_ends_with_an_error(toy_tasks, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("serl_suite.nodes.demonstrations.MAX_TRIES", 0)
    assert record(tmp_path / "demos") == 1
    assert "lower the noise" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--episodez", "--nois"])
def test_a_misspelt_option_is_usage(toy_tasks, capsys, word):
    with pytest.raises(SystemExit) as end:
        main(["demo", "record", "Toy-v0", "--scripted", word, "3"])
    assert end.value.code == 2
    assert word[:6] in capsys.readouterr().err


def test_what_is_observed_is_what_a_run_from_pixels_observes(tmp_path, capsys):
    folder = tmp_path / "demos"
    words = ["demo", "record", "FrankaReach-v0", "--scripted", "--episodes", "1", "--out", str(folder)]
    assert main([*words, "--obs", "pixels", "--image-size", "16", "--frame-stack", "2"]) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"--demos {folder} --obs pixels --actor.image-size 16 --actor.frame-stack 2" in said
    spec = read_dataset(folder)[0].spec
    assert set(spec.image_keys) == {"front", "front-1", "wrist", "wrist-1"}
    assert spec.observation["wrist-1"].shape == (16, 16, 3)
    run = Environment("FrankaReach-v0", obs="pixels", image_size=16, frame_stack=2)
    assert spec.difference(run.spec) is None
    run.close()
