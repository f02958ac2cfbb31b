"""`serl data inspect`: right figures, and a damaged file is named without hiding the others."""

import re

import numpy as np
import pytest

from serl_suite.cli.main import main
from serl_suite.data.episodes import Episode, write_episode
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SPEC = EnvSpec(
    task="Pick-v0",
    observation={
        "pose": ArraySpec(shape=(2,), dtype="float32"),
        "wrist": ArraySpec(shape=(8, 6, 3), dtype="uint8", low=0, high=255),
    },
    action=ArraySpec(shape=(1,), dtype="float32", low=-1, high=1),
    rate_hz=20.0,
)


def episode(number, length, *, success, spec=SPEC, value=0.5):
    """Observations count up from 0 in steps of 1; the second half is by a human who intervenes."""
    steps = []
    for index in range(length + 1):
        image = np.full((8, 6, 3), index, np.uint8)
        human = index > length / 2
        steps.append(
            Step(
                seq=number * 100 + index,
                episode=number,
                index=index,
                observation={
                    "pose": np.full(spec.observation["pose"].shape, index, np.float32),
                    "wrist": image,
                },
                action=None if index == 0 else np.array([value], np.float32),
                reward=float(success and index == length),
                terminated=success and index == length,
                truncated=not success and index == length,
                success=success if index == length else None,
                source="human" if human else "policy",
                intervention=human,
            )
        )
    return Episode(session_id="s", number=number, spec=spec, steps=steps)


@pytest.fixture
def folder(tmp_path):
    write_episode(tmp_path / "data" / "0.parquet", episode(0, 10, success=True))
    write_episode(tmp_path / "data" / "deep" / "1.parquet", episode(1, 30, success=False, value=-0.25))
    return tmp_path / "data"


def rows(capsys):
    """Printed table rows by their first word."""
    text = capsys.readouterr().out
    return {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines() if line.split()}


def test_figures(folder, capsys):
    assert main(["data", "inspect", str(folder)]) == 0
    table = rows(capsys)
    assert table["task"] == "Pick-v0"
    assert table["episodes"] == "2"
    assert table["steps"] == "40, 2 s of robot time at 20 Hz"
    assert table["success"] == "1 of 2 (50 %)"
    assert table["length"] == "10 to 30, median 20 steps"
    assert table["return"] == "0 to 1, median 0.5"
    assert table["actions"] == "by policy 50 % , human 50 %".replace(" ,", ",")
    assert table["interventions"] == "20 steps"
    assert table["observation/pose"] == "(2,) float32 0 12.38 30"
    assert table["observation/wrist"] == "(8, 6, 3) uint8 0 12.38 30"
    assert table["action"] == "(1,) float32 -0.25 -0.0625 0.5"


def test_a_damaged_file_is_named_and_the_others_shown(folder, capsys):
    damaged = folder / "2.parquet"
    damaged.write_bytes((folder / "0.parquet").read_bytes()[:-200])
    assert main(["data", "inspect", str(folder)]) == 1
    captured = capsys.readouterr()
    assert str(damaged) in captured.err
    assert re.search(r"episodes +2; 1 more damaged", captured.out)


def test_rotten_bytes_in_the_middle_are_found(folder, capsys):
    path = folder / "0.parquet"
    data = bytearray(path.read_bytes())
    data[400:700] = bytes(300)
    path.write_bytes(data)
    assert main(["data", "inspect", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_other_spaces_get_a_table_of_their_own(folder, capsys):
    spec = EnvSpec(
        task="Place-v0",
        observation={**SPEC.observation, "pose": ArraySpec(shape=(3,), dtype="float32")},
        action=SPEC.action,
    )
    write_episode(folder / "3.parquet", episode(3, 5, success=True, spec=spec))
    assert main(["data", "inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.count("interventions") == 2
    assert re.search(r"observation/pose +\(3,\)", out)


def test_an_episode_that_was_cut_off_is_said(tmp_path, capsys):
    whole = episode(0, 10, success=True)
    cut = Episode(session_id="s", number=0, spec=SPEC, steps=whole.steps[:4])
    write_episode(tmp_path / "0.parquet", cut)
    main(["data", "inspect", str(tmp_path)])
    table = rows(capsys)
    assert table["episodes"] == "1, 1 of them cut off"
    assert table["success"] == "not told"


def test_names_are_shown_as_they_are(tmp_path, capsys):
    odd = EnvSpec(task="Pick[b]:x:-v0", observation=SPEC.observation, action=SPEC.action)
    write_episode(tmp_path / "0.parquet", episode(0, 4, success=True, spec=odd))
    assert main(["data", "inspect", str(tmp_path)]) == 0
    assert rows(capsys)["task"] == "Pick[b]:x:-v0"


def test_nothing_there(tmp_path, capsys):
    assert main(["data", "inspect", str(tmp_path)]) == 1
    assert main(["data", "inspect", str(tmp_path / "absent.parquet")]) == 1
    err = capsys.readouterr().err
    assert "no episodes" in err
    assert "absent.parquet" in err


def test_a_run_shows_its_demonstrations(make_run, capsys):
    run = make_run()
    assert main(["data", "inspect", str(run.path)]) == 0
    out = capsys.readouterr().out.replace("\n", "")
    assert str(run.demos) in out
    assert "scripted 100 %" in out
