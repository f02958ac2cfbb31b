"""Rig files: what is in them, what is refused, and which tasks fit."""

from pathlib import Path

import gymnasium
import msgspec
import pytest
from serl_envs.rigs import UnfitRig

from serl_suite.rig import BadRig, Limits, Rig, read_rig

RIGS = Path(__file__).parents[2] / "hardware" / "rigs"
PICK = "FrankaPickCube-v0"


@pytest.mark.parametrize("path", sorted(RIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_rig_of_ours_can_be_read(path):
    assert read_rig(path).source == str(path)


def test_a_rig_survives_a_run_folder(tmp_path):
    rig = read_rig(RIGS / "fr3.yaml")
    (tmp_path / "again.yaml").write_bytes(msgspec.yaml.encode(rig))
    again = read_rig(tmp_path / "again.yaml")
    assert msgspec.structs.replace(again, source=rig.source) == rig


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("contrl: {}", r"there is no contrl; did you mean control\?"),
        ("control: {box_lowr: [0, 0, 0]}", r"there is no control\.box_lowr; did you mean box_lower\?"),
        ("cameras: [{name: a, driver: v4l2, serial: x, seral: y}]", r"cameras\[0\]\.seral; did you mean serial\?"),
        ("teleop: {driver: spacemose}", r"teleop\.driver: Invalid enum value 'spacemose'"),
        ("grasp_force_n: strong", "grasp_force_n: Expected `float`"),
        ("grasp_force_n: 200", "grasp_force_n: Expected `float` <= 70"),
        ("control: {box_lower: [0.8, 0, 0]}", "control: the workspace is empty: in x it begins at 0.8 m"),
        ("control: {box_upper: [3.0, 0.4, 0.6]}", r"goes to x = 3\.0 m; no arm reaches"),
        ("limits: {force_n: 900}", "limits: a push of 900 N"),
        ("limits: {stiffness_n_per_m: 1.0e+5}", "limits: 100000 N/m"),
        ("limits: {force_n: 10}", "stiffness times clip pushes with 25 N, and limits.force_n is 10"),
        ("control: {filter_s: -1}", "control.filter_s: Expected `float` >= 0"),
        ("control: {stiffness: [.nan, 500, 500, 50, 50, 50]}", "not finite"),
        ("limits: {force_n: .inf}", "limits"),
        ("arm: robot", "'robot' is no IP address"),
        ("server: 127.0.0.1:5755", "is no address; write it as tcp://HOST:PORT"),
        ("server: tcp://10.0.0.3:5755", "takes keys"),
        ("scene: tcp://10.0.0.3:1339", "shows its scene on its own only"),
        ("pace: lockstep", "no arm of metal can wait"),
        ("cameras: [{name: a, driver: v4l2, serial: x}, {name: a, driver: v4l2, serial: y}]", "the same name"),
        ("arm: [", "no YAML"),
        ("arm: 2020-13-45", "no YAML"),
        ("arm: !!timestamp x", "no YAML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, text, said):
    path = tmp_path / "rig.yaml"
    path.write_text(text if text.startswith("arm") else f"arm: 127.0.0.1\n{text}\n")
    with pytest.raises(BadRig, match=said) as error:
        read_rig(path)
    assert str(path) in str(error.value)


def test_a_missing_file_names_those_that_are_there(tmp_path):
    (tmp_path / "lab.yaml").write_text("arm: 127.0.0.1")
    with pytest.raises(BadRig, match=r"No such file.*lab\.yaml"):
        read_rig(tmp_path / "lap.yaml")


def rig(**fields):
    return Rig(arm="127.0.0.1", **{"scene": "tcp://127.0.0.1:1339", "source": "lab.yaml", **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"scene": None}, "lab.yaml has no scene"),
        ({"hand": False}, "needs a hand"),
        ({"limits": Limits(force_n=30.0)}, r"asks for force_n 40, and limits\.force_n in lab\.yaml is 30"),
        ({"limits": Limits(stiffness_n_per_m=600.0)}, "asks for stiffness_n_per_m 800"),
    ],
)
def test_a_task_that_does_not_fit_the_rig_is_refused_before_anything_is_asked(fields, said):
    with pytest.raises(UnfitRig, match=said):
        gymnasium.make(PICK, rig=rig(**fields))


def test_a_task_that_leaves_the_workspace_is_refused():
    narrow = msgspec.structs.replace(rig().control, box_upper=(0.5, 0.4, 0.6))
    with pytest.raises(UnfitRig, match=r"widen control\.box_lower and control\.box_upper"):
        gymnasium.make(PICK, rig=rig(control=narrow))
