"""A run folder opens as it was made; anything else is an error that says what to do."""

import json
import os
from threading import Event

import pytest

from serl_suite.agents.rlpd import RLPDConfig
from serl_suite.networks.encoder_config import EncoderConfig
from serl_suite.nodes import run_folder
from serl_suite.nodes.config import ActorConfig, TrainConfig
from serl_suite.nodes.run_folder import RunFolder, RunFolderError

CONFIG = TrainConfig(
    task="Toy-v0", seed=5, agent=RLPDConfig(utd=3.0, hidden=(64, 32)), actor=ActorConfig(cameras=("wrist",))
)


def test_opens_with_the_configuration_it_was_made_with(tmp_path):
    made = RunFolder.create(tmp_path / "run", CONFIG)
    opened = RunFolder(tmp_path / "run")
    assert opened.config == CONFIG
    assert opened.info == made.info
    assert opened.info.versions["torch"]


def test_a_run_does_not_go_on_with_other_weights_of_its_backbone(tmp_path):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"one")
    encoder = EncoderConfig(frozen=True, weights=str(weights))
    folder = RunFolder.create(tmp_path / "run", TrainConfig(task="T", agent=RLPDConfig(encoder=encoder)))
    folder.hold_files()
    folder.hold_files()
    weights.write_bytes(b"another")
    with pytest.raises(RunFolderError, match="not the backbone"):
        folder.hold_files()


def test_a_run_that_is_made_half_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "write_durably", lambda *_: os._exit(9))
    child = os.fork()
    if child == 0:
        RunFolder.create(tmp_path / "run", CONFIG)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with pytest.raises(RunFolderError, match="not a run folder"):
        RunFolder(tmp_path / "run")


def test_never_writes_into_a_folder_that_holds_something(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="name another"):
        RunFolder.create(tmp_path / "run", CONFIG)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_takes_an_empty_folder(tmp_path):
    (tmp_path / "run").mkdir()
    assert RunFolder.create(tmp_path / "run", CONFIG).config == CONFIG


def test_a_misspelt_name_is_answered_with_the_near_one(tmp_path):
    RunFolder.create(tmp_path / "pick-1", CONFIG)
    with pytest.raises(RunFolderError, match=r"did you mean .*pick-1\?"):
        RunFolder(tmp_path / "pikc-1")


def test_another_format_names_the_version_that_wrote_it(tmp_path):
    run = RunFolder.create(tmp_path / "run", CONFIG)
    info = json.loads((run.path / "run.json").read_text())
    info["format"], info["versions"]["serl-suite"] = 999, "9.9.9"
    (run.path / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunFolderError, match=r"999.*9\.9\.9"):
        RunFolder(run.path)


@pytest.mark.parametrize("name", ["run.json", "config.yaml"])
def test_a_damaged_file_is_named(tmp_path, name):
    run = RunFolder.create(tmp_path / "run", CONFIG)
    path = run.path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b"\x00{[")
    with pytest.raises(RunFolderError, match=name):
        RunFolder(run.path)


def test_a_misspelt_setting_in_the_configuration_is_named(tmp_path):
    run = RunFolder.create(tmp_path / "run", CONFIG)
    path = run.path / "config.yaml"
    path.write_text(path.read_text().replace("max_steps", "max_stepz"))
    with pytest.raises(RunFolderError, match="max_stepz"):
        RunFolder(run.path)


def test_an_actor_finds_the_address_of_its_learner(tmp_path):
    run = RunFolder.create(tmp_path / "run", CONFIG)
    with pytest.raises(RunFolderError, match="serl learner --resume"):
        run.wait_for_address(Event(), timeout_s=0.05)
    run.announce("tcp://127.0.0.1:6001")
    assert run.wait_for_address(Event()) == "tcp://127.0.0.1:6001"


def test_waiting_for_a_learner_ends_with_ctrl_c(tmp_path):
    stop = Event()
    stop.set()
    assert RunFolder.create(tmp_path / "run", CONFIG).wait_for_address(stop) == ""
