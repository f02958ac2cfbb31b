"""A rig's cameras: what is refused when it is read, and what the doctor finds."""

import pytest
from seen import await_fault, film, serving, watching, write_rig
from serl_servers.doctor.devices import check_devices

from serl_suite.rig import BadRig, read_rig


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "driver: v4l2, serial: x, crop: [200, 0, 480]",
            r"the square of 480 at \(200, 0\) is not inside 640x480",
        ),
        ("driver: v4l2, serial: x, crop: [-1, 0, 100]", "is not inside"),
        (
            "driver: v4l2, serial: x, crop: [0, 0, 100]",
            "a picture of 128 pixels can't be had from a square of 100",
        ),
        ("driver: v4l2, serial: x, exposure_ms: locked", r"cameras\[0\]\.exposure_ms"),
        ("driver: v4l2, serial: x, exposure_ms: -1", r"cameras\[0\]\.exposure_ms"),
        ("driver: v4l2, serial: x, rate_hz: 5", r"cameras\[0\]\.rate_hz: Expected `int` >= 10"),
        ("driver: twin, serial: front", "a twin draws squares"),
        ("driver: twin, serial: front, width: 128, height: 128", "this rig has none; add scene"),
        ("driver: webcam, serial: x", r"cameras\[0\]\.driver"),
    ],
)
def test_what_can_not_be_is_named(tmp_path, text, said):
    path = tmp_path / "rig.yaml"
    path.write_text(f"arm: 127.0.0.1\ncameras: [{{name: wrist, {text}}}]\n")
    with pytest.raises(BadRig, match=said) as error:
        read_rig(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("camera_server: tcp://10.0.0.3:5757", "takes keys"),
        ("camera_server: somewhere", "is no address"),
        (
            "scene: tcp://127.0.0.1:1339\npace: lockstep\ncameras: [{name: a, driver: v4l2, serial: x}]",
            "they see real time pass, and pace is lockstep",
        ),
        ("cameras: [{name: Wrist Camera, driver: v4l2, serial: x}]", "name"),
    ],
)
def test_what_does_not_go_together(tmp_path, text, said):
    path = tmp_path / "rig.yaml"
    path.write_text(f"arm: 127.0.0.1\n{text}\n")
    with pytest.raises(BadRig, match=said):
        read_rig(path)


def test_the_doctor_asks_the_server_and_else_looks_itself(tmp_path):
    there = film(tmp_path / "film.mkv", ("lively", 20.0))
    rig = write_rig(
        tmp_path, {"name": "front", "serial": there}, {"name": "wrist", "serial": str(tmp_path / "none")}
    )
    front, wrist, _ = check_devices(rig, tmp_path)
    assert (front.level, wrist.level) == ("ok", "failed")
    assert front.text == there
    with serving(rig), watching(rig) as client:
        await_fault(client, "front", "")
        await_fault(client, "wrist", "missing")
        front, wrist, _ = check_devices(rig, tmp_path)
        assert (front.level, wrist.level) == ("ok", "failed")
        assert "seen by the camera server: 48x48" in front.text
        assert wrist.text.startswith("missing: there is no")
        other = write_rig(tmp_path, {"name": "side", "serial": there}, camera_server=rig.camera_server)
        side, _ = check_devices(other, tmp_path)
        assert (side.level, side.what) == ("failed", "camera side")
        assert (
            f"has front, wrist; end it, and start it again: serl camera serve --rig {other.source}"
            in side.text
        )


def test_the_doctor_reads_calibrations(tmp_path):
    there = film(tmp_path / "film.mkv", ("lively", 0.2))
    rig = write_rig(tmp_path, {"name": "front", "serial": there, "calibration": str(tmp_path / "none.yaml")})
    front, _ = check_devices(rig, tmp_path)
    assert (front.level, "make it: serl camera calibrate" in front.text) == ("failed", True)
