"""Calibration: boards drawn through a known lens are found again, and files that can't be are refused."""

import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from seen import write_rig
from serl_servers.cameras.boards import Board, calibrate
from serl_servers.cameras.calibration import BadCalibration, Calibration, read_calibration, write_calibration
from serl_servers.cameras.picture import Shaper
from serl_servers.cameras.seeing import different_views

from serl_suite.rig import Camera

WIDTH, HEIGHT = 640, 480
FX, FY, CX, CY = 602.0, 598.0, 327.0, 233.0
DISTORTION = (0.09, -0.15, 0.001, -0.0007, 0.02)
BOARDS = [Board("charuco", (8, 6), 0.03, 0.022), Board("chess", (9, 7), 0.03, 0.0)]


def matrix():
    return np.array([[FX, 0, CX], [0, FY, CY], [0, 0, 1.0]])


def photograph(board, turn, place):
    """The board as the lens shows it: every pixel's ray is followed to the board. Shape: (HEIGHT, WIDTH, 3)."""
    scale = 80
    texture = np.pad(board.picture(scale), ((scale, scale), (scale, scale), (0, 0)), constant_values=255)
    columns, rows = np.meshgrid(np.arange(WIDTH, dtype=np.float64), np.arange(HEIGHT, dtype=np.float64))
    pixels = np.stack([columns.ravel(), rows.ravel()], 1).reshape(-1, 1, 2)
    rays = cv2.undistortPoints(pixels, matrix(), np.array(DISTORTION)).reshape(-1, 2)
    rotation, _ = cv2.Rodrigues(np.array(turn))
    centre = np.array([*board.squares, 0]) * board.square_m / 2
    origin = np.array(place) - rotation @ centre
    directions = np.column_stack([rays, np.ones(len(rays))])
    depth = (rotation[:, 2] @ origin) / (directions @ rotation[:, 2])
    on_board = (directions * depth[:, None] - origin) @ rotation
    where = (
        (on_board[:, :2] / board.square_m * scale + scale - 0.5).astype(np.float32).reshape(HEIGHT, WIDTH, 2)
    )
    # antialiased: a small picture of a large board
    blurred = cv2.GaussianBlur(texture, (0, 0), 0.35 * scale * place[2] / (FX * board.square_m))
    return cv2.remap(blurred, where, None, cv2.INTER_LINEAR, borderValue=(120, 120, 120))


def photographs(board, count=14):
    rng = np.random.default_rng(3)
    wide = 0.06 if board.kind == "chess" else 0.11  # of a chessboard all has to be seen
    return [
        photograph(
            board, rng.uniform(-0.45, 0.45, 3),
            (rng.uniform(-wide, wide), rng.uniform(-0.7 * wide, 0.7 * wide), rng.uniform(0.35, 0.5)),
        )
        for _ in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.kind)
def test_the_lens_is_found_again(board):
    views = different_views(board, photographs(board), (WIDTH, HEIGHT), 0.0, 20)
    assert len(views) >= 10
    found = calibrate("4711", (WIDTH, HEIGHT), views)
    assert found.intrinsics == pytest.approx((FX, FY, CX, CY), rel=0.01)
    assert found.rms_px < 0.3
    # where the lens puts the picture's corners, which single coefficients don't say
    corners = np.array([[[40.0, 40.0]], [[600.0, 40.0]], [[600.0, 440.0]], [[40.0, 440.0]]])
    true, ours = (
        cv2.undistortPoints(corners, lens, np.array(distortion), P=matrix())
        for lens, distortion in ((matrix(), DISTORTION), (found.matrix, found.distortion))
    )
    assert np.abs(true - ours).max() < 1.5


def test_straightened_lines_are_straight():
    calibration = Calibration(
        serial="4711", width=WIDTH, height=HEIGHT, intrinsics=(FX, FY, CX, CY), rms_px=0.1, views=9,
        distortion=(-0.3, 0.1, 0.0, 0.0, 0.0),
    )  # fmt: skip
    x, y = np.meshgrid(np.linspace(-0.45, 0.45, 2000), [-0.3])
    line = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], 1)
    bent, _ = cv2.projectPoints(
        line, np.zeros(3), np.zeros(3), calibration.matrix, np.array(calibration.distortion)
    )
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    cv2.polylines(
        frame, [np.round(bent).astype(np.int32)], isClosed=False, color=(255, 255, 255), thickness=3
    )
    camera = Camera(name="a", driver="v4l2", serial="4711", width=WIDTH, height=HEIGHT, size=480)

    def height_of_line(shaper):
        picture = shaper.shape(frame)[:, 20:-20, 0].astype(float)
        return (picture * np.arange(len(picture))[:, None]).sum(0) / picture.sum(0)

    assert np.ptp(height_of_line(Shaper(camera, None))) > 3
    assert np.ptp(height_of_line(Shaper(camera, calibration))) < 1.5  # it is drawn in whole pixels


def test_a_file_survives_and_is_checked_against_its_camera(tmp_path):
    path = tmp_path / "wrist.yaml"
    good = Calibration(
        serial="4711",
        width=640,
        height=480,
        intrinsics=(600, 600, 320, 240),
        distortion=(0.1, 0, 0, 0, 0),
        rms_px=0.2,
        views=9,
    )
    write_calibration(path, good)
    camera = Camera(name="wrist", driver="realsense", serial="4711")
    assert read_calibration(path, camera) == good
    for other in (
        Camera(name="wrist", driver="realsense", serial="4712"),
        Camera(name="wrist", driver="realsense", serial="4711", width=1280, height=720),
    ):
        with pytest.raises(
            BadCalibration, match=r"is of camera 4711 at 640x480, and wrist is .*serl camera calibrate"
        ):
            read_calibration(path, other)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("intrinsics:\n- 600.0", "intrinsics:\n- -600.0"), "of no camera of 640x480"),
        (("rms_px: 0.2", "rms_px: 3.5"), "3.5 pixels off"),
        (("rms_px: 0.2", "rms_px: .nan"), "not finite"),
        (("rms_px", "rms_pixels"), "rms_pixels"),
        (("width: 640", "width: wide"), "width"),
        (("serial", "]["), "wrist.yaml"),
    ],
)
def test_a_file_that_can_not_be(tmp_path, change, said):
    path = tmp_path / "wrist.yaml"
    write_calibration(
        path,
        Calibration(
            serial="4711", width=640, height=480, intrinsics=(600.0, 600.0, 320.0, 240.0),
            distortion=(0.1, 0.0, 0.0, 0.0, 0.0), rms_px=0.2, views=9,
        ),
    )  # fmt: skip
    text = path.read_text()
    assert change[0] in text, text
    path.write_text(text.replace(*change))
    with pytest.raises(BadCalibration, match=re.escape(said)) as error:
        read_calibration(path)
    assert str(path) in str(error.value)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "serl_servers.cameras", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_makes_a_file_that_the_rig_takes(tmp_path):
    board, folder = BOARDS[0], tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(photographs(board, 8)):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    camera = {"name": "wrist", "serial": "/dev/video9", "width": WIDTH, "height": HEIGHT}
    rig, out = write_rig(tmp_path, camera), tmp_path / "wrist.yaml"
    words = (
        "calibrate",
        "--rig",
        rig.source,
        "--camera",
        "wrist",
        "--out",
        str(out),
        "--images",
        str(folder),
    )
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert read_calibration(out, rig.cameras[0]).views == 8

    again = run(*words, "--squares", "5", "7")
    assert again.returncode == 1
    assert "check --board, --squares" in again.stderr
    other = run(*words[:4], "wirst", *words[5:])
    assert "lists no camera 'wirst' but wrist" in other.stderr

    wrong = write_rig(tmp_path, camera | {"serial": "/dev/video8", "calibration": str(out)})
    served = run("serve", "--rig", wrong.source)
    assert served.returncode == 1
    assert "is of camera /dev/video9" in served.stderr
