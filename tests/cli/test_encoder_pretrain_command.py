"""`serl encoder pretrain`: weights from recorded pictures, and clear answers to what cannot be done."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from serl_suite.cli.main import main
from serl_suite.data.episodes import Episode, write_episode
from serl_suite.networks.backbone import make_backbone
from serl_suite.networks.encoder_config import EncoderConfig
from serl_suite.networks.weights import read_weights
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

QUICK = ["--side", "16", "--updates", "4", "--batch", "4"]


@pytest.fixture
def demos(tmp_path):
    """An episode of 12 pictures of 24 x 24, and the state beside them."""
    spec = EnvSpec(
        task="Pick-v0",
        observation={
            "pose": ArraySpec(shape=(2,), dtype="float32"),
            "wrist": ArraySpec(shape=(24, 24, 3), dtype="uint8"),
        },
        action=ArraySpec(shape=(7,), dtype="float32", low=-1, high=1),
    )
    rng = np.random.default_rng(0)
    steps = [
        Step(
            seq=index,
            episode=0,
            index=index,
            observation={
                "pose": np.zeros(2, np.float32),
                "wrist": rng.integers(0, 256, (24, 24, 3), np.uint8),
            },
            action=np.full(7, 0.1 * index - 0.5, np.float32) if index else None,
            truncated=index == 11,
        )
        for index in range(12)
    ]
    write_episode(tmp_path / "demos" / "0.parquet", Episode(session_id="s", number=0, spec=spec, steps=steps))
    return tmp_path / "demos"


def answer(capsys, *words):
    """Exit code and everything printed, of a command of which nothing may break."""
    code = main(["encoder", "pretrain", *map(str, words)])
    printed = capsys.readouterr()
    return code, " ".join((printed.out + printed.err).split())


def test_recorded_pictures_become_weights_that_a_frozen_backbone_takes(demos, tmp_path, capsys):
    out = tmp_path / "pick.safetensors"
    code, text = answer(capsys, demos, *QUICK, "--out", out)
    assert code == 0, text
    assert "cnn from 11 looks, 16 x 16 pixels" in text
    assert f"--agent.encoder.weights {out}" in text
    config = EncoderConfig(frozen=True, weights=str(out))
    assert (
        make_backbone(config, 16, torch.Generator())(torch.zeros(1, 16, 16, 3, dtype=torch.uint8)).shape[0]
        == 1
    )
    assert read_weights(out)[1].source == {"Pick-v0 wrist": 11}


def test_recordings_and_a_twin_together(demos, tmp_path, capsys):
    out = tmp_path / "both.safetensors"
    twin = ["--task", "FrankaReach-v0", "--renders", "6", "--cameras", "wrist"]
    code, text = answer(capsys, demos, *twin, *QUICK, "--out", out)
    assert code == 0, text
    assert read_weights(out)[1].source == {"Pick-v0 wrist": 11, "FrankaReach-v0 wrist": 6}


def test_what_cannot_be_done_is_said_with_what_can(demos, tmp_path, capsys):
    (tmp_path / "there.safetensors").write_text("mine")
    for words, expected in (
        ([], "nothing to look at; give recorded episodes"),
        ([demos, "--out", tmp_path / "there.safetensors"], "exists already"),
        ([demos, "--out", tmp_path / "a.pt"], "must end in .safetensors"),
        ([demos, "--side", "4"], "--side is 4; give 8 or more"),
        ([tmp_path / "none"], "no episode file"),
        (
            [demos, *QUICK, "--backbone", "resnet11", "--out", tmp_path / "a.safetensors"],
            "did you mean resnet1",
        ),
        ([demos, *QUICK, "--device", "cuda:99", "--out", tmp_path / "a.safetensors"], "no device 'cuda:99'"),
        (["--task", "FrankaReech-v0", "--out", tmp_path / "a.safetensors"], "did you mean FrankaReach-v0"),
    ):
        code, text = answer(capsys, *words)
        assert code == 1, text
        assert expected in text
    assert (tmp_path / "there.safetensors").read_text() == "mine"
    assert not (tmp_path / "a.safetensors").exists()


def test_the_help_teaches(capsys):
    with pytest.raises(SystemExit) as end:
        main(["encoder", "pretrain", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "\n  serl encoder pretrain --task FrankaPickCube-v0" in text
    assert "SERL_WEIGHTS" in text


def test_ctrl_c_ends_it_and_writes_nothing(demos, tmp_path):
    out = tmp_path / "long.safetensors"
    words = [
        "encoder",
        "pretrain",
        demos,
        "--side",
        "16",
        "--updates",
        "1000000",
        "--batch",
        "4",
        "--out",
        out,
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "serl_suite.cli.main", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "FORCE_COLOR": "1"},
    ) as process:
        seen = b""
        deadline = time.monotonic() + 60
        while b"training" not in seen and time.monotonic() < deadline:
            seen += os.read(process.stdout.fileno(), 4096)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 130, seen + rest
    assert b"Traceback" not in rest
    assert not out.exists()
