"""What people do with cameras: list, view, record."""

import subprocess
import sys
import urllib.request

import av
import cv2
import msgspec
import numpy as np
from PIL import Image
from seen import await_fault, film, picture, serving, watching, write_rig
from serl_servers.cameras.recording import Line
from serl_servers.cameras.view import Viewer


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "serl_servers.cameras", *arguments], capture_output=True, text=True, timeout=60
    )


def test_record_keeps_every_picture_to_the_bit(tmp_path):
    serial = film(tmp_path / "film.mkv", ("lively", 20.0))
    rig = write_rig(tmp_path, {"name": "front", "serial": serial}, {"name": "wrist", "serial": serial})
    with serving(rig), watching(rig) as client:
        for name in ("front", "wrist"):
            await_fault(client, name, "")
        out = tmp_path / "kept"
        done = run("record", "--rig", rig.source, "--seconds", "2", "--out", str(out))
        assert done.returncode == 0, done.stderr
        again = run("record", "--rig", rig.source, "--out", str(out))
        assert again.returncode == 1
        assert "take another folder" in again.stderr
    for name in ("front", "wrist"):
        lines = [
            msgspec.json.decode(line, type=Line) for line in (out / f"{name}.jsonl").read_bytes().splitlines()
        ]
        with av.open(str(out / f"{name}.mkv")) as container:
            kept = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(kept) == len(lines) > 30
        for pixels, line in zip(kept, lines, strict=True):
            assert np.array_equal(pixels, picture(line.stamp.sequence)[:, 8:56])
            assert 0 <= line.skew_s < 0.1
        sequences = [line.stamp.sequence for line in lines]
        assert sequences == sorted(set(sequences))


def test_view_writes_what_is_seen_and_says_what_is_not(tmp_path):
    serial, out = film(tmp_path / "film.mkv", ("lively", 20.0)), tmp_path / "now.png"
    rig = write_rig(
        tmp_path, {"name": "front", "serial": serial}, {"name": "wrist", "serial": str(tmp_path / "none")}
    )
    with serving(rig), watching(rig) as client:
        await_fault(client, "front", "")
        await_fault(client, "wrist", "missing")
        done = run("view", "--rig", rig.source, "--out", str(out))
        assert done.returncode == 1
        assert "camera wrist: missing: there is no" in done.stderr
        assert "camera front" not in done.stderr, "it is not made to look old by the other"
        page = np.asarray(Image.open(out))
        assert page[10:400, 10:240].std() < 3, "the left half of the film's picture is one level"
        assert page[10:400, 250:480].std() > 20

        viewer = Viewer(client, 0)
        try:
            with urllib.request.urlopen(viewer.address, timeout=5) as answer:
                assert b'src="/live"' in answer.read()
            with urllib.request.urlopen(f"{viewer.address}/live", timeout=5) as live:
                body = live.read(400_000)
        finally:
            viewer.close()
        first, second = (part.partition(b"\r\n\r\n")[2] for part in body.split(b"--picture\r\n")[1:3])
        shown = cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_COLOR)
        assert shown.shape == page.shape
        assert first != second


def test_list_says_what_of_a_rig_is_missing(tmp_path):
    there = film(tmp_path / "film.mkv", ("lively", 0.2))
    rig = write_rig(
        tmp_path,
        {"name": "front", "serial": there},
        {"name": "wrist", "driver": "realsense", "serial": "4711"},
    )
    done = run("list", "--rig", rig.source)
    assert done.returncode == 1
    assert f"{rig.source}: camera wrist is missing: realsense 4711" in done.stdout
    assert "front" not in done.stdout
