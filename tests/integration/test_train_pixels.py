"""`serl train --obs pixels` from demonstrations to report, from the twin's cameras."""

import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "faults")]
from serl_command import SMALL, run  # noqa: E402

from serl_suite.data.episodes import read_dataset  # noqa: E402
from serl_suite.nodes.run_folder import RunFolder  # noqa: E402

PIXELS = [
    *["--obs", "pixels", "--actor.image-size", 32, "--agent.encoder.width", 8],
    *["--max-steps", 40, "--demo-episodes", 1, "--evaluation.episodes", 1, *SMALL],
]


@pytest.mark.parametrize("features", [False, True], ids=["pictures", "features"])
def test_a_run_from_cameras_leaves_what_a_run_from_states_does(tmp_path, features):
    folder = tmp_path / "pick"
    frozen = [
        *["--agent.encoder.frozen", "--agent.encoder.weights", "random"],
        "--agent.encoder.stored-shifts",
        2,
    ]
    code, out, err = run(
        "train", "FrankaPickCube-v0", "--run", folder, *PIXELS, *(frozen if features else []), timeout_s=280
    )
    assert code in (0, 1), err
    assert "of 1 succeeded" in out
    spec = read_dataset(folder / "episodes")[0].spec
    assert spec.image_keys == ("front", "wrist")
    assert "cube" not in spec.observation, "nothing that only a simulation knows"
    for name in ("evaluation.mp4", "report.html"):
        assert (folder / name).stat().st_size > 1000, name
    assert RunFolder(folder).policy.exists()
    step = read_dataset(folder / "episodes")[0].steps[0]
    assert np.ptp(step.observation["wrist"]) > 50, "a picture of something"
