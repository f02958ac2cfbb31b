"""The camera server as a user starts it: films, recordings and a wire twin in the place of cameras."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
import zmq
from seen import await_fault, film, picture, processes, recording, serving, shots, watching, write_rig

from serl_suite.wire.camera_client import CameraClient, CamerasUnreachable
from serl_suite.wire.camera_messages import MAGIC, STALE_S, ShowPictures, decode_answer, encode
from serl_suite.wire.keys import client_keys, make_keys


@pytest.fixture(scope="module")
def long_film(tmp_path_factory):
    return film(tmp_path_factory.mktemp("film") / "long.mkv", ("lively", 60.0))


def test_two_cameras_are_seen_together(tmp_path, long_film):
    rig = write_rig(
        tmp_path, {"name": "front", "serial": long_film}, {"name": "wrist", "serial": long_film, "size": 24}
    )
    with serving(rig), watching(rig) as client:
        for name in ("front", "wrist"):
            await_fault(client, name, "")
        skews, ages = [], []
        for _ in range(40):
            time.sleep(0.02)
            client.look()
            skews.append(client.skew_s)
            ages.append(client.age_s("front"))
        front, wrist = client.picture("front"), client.picture("wrist")
        assert (front.shape, wrist.shape) == ((48, 48, 3), (24, 24, 3))
        sequence = client.sight("front").stamp.sequence
        assert np.array_equal(front, picture(sequence)[:, 8:56])  # the middle, not resized
        assert max(skews) < 0.05
        assert np.median(ages) < 0.1


def test_who_waits_gets_each_picture(tmp_path, long_film):
    rig = write_rig(tmp_path, {"name": "front", "serial": long_film})
    with serving(rig), watching(rig) as client:
        await_fault(client, "front", "")
        sequences = []
        for _ in range(30):
            assert client.await_next("front", 1.0)
            assert client.age_s("front") < STALE_S
            sequences.append(client.sight("front").stamp.sequence)
        assert sequences == sorted(set(sequences))
        assert sequences[-1] - sequences[0] < 45


def test_a_film_that_freezes_goes_black_and_ends(tmp_path):
    """Each is named, nothing of it is passed on, and in the end it begins anew."""
    path = film(
        tmp_path / "film.mkv",
        ("lively", 1.5),
        ("same", 1.5),
        ("lively", 1.5),
        ("black", 1.5),
        ("lively", 1.0),
    )
    rig = write_rig(tmp_path, {"name": "front", "serial": path})
    with serving(rig) as log, watching(rig) as client:
        await_fault(client, "front", "")
        assert "cable" in await_fault(client, "front", "frozen")
        held = client.picture("front").copy()
        assert client.age_s("front") > STALE_S
        await_fault(client, "front", "")
        assert "take the cap off" in await_fault(client, "front", "black")
        assert client.picture("front").max() > 30, "the last good one is held"
        assert not np.array_equal(held, client.picture("front"))
        await_fault(client, "front", "")
        assert "is over" in await_fault(client, "front", "unplugged")
        await_fault(client, "front", "")
        first = client.sight("front").stamp.sequence
        assert client.await_next("front", 1.0)
        assert client.sight("front").stamp.sequence > first
        assert "camera front: frozen" in log.read_text()


def test_a_recording_is_played_and_opened_again_when_it_is_over(tmp_path):
    pytest.importorskip("pyrealsense2", exc_type=ImportError)
    tape = recording(tmp_path / "tape.db3", ("lively", 1.5))
    rig = write_rig(tmp_path, {"name": "front", "serial": tape, "driver": "realsense"})
    with serving(rig), watching(rig) as client:
        await_fault(client, "front", "")
        first = client.sight("front").stamp.sequence
        await_fault(client, "front", "stalled")
        await_fault(client, "front", "")
        assert client.sight("front").stamp.sequence > first


def test_a_dead_or_hanging_process_is_one_cameras_matter(tmp_path, long_film):
    rig = write_rig(tmp_path, {"name": "front", "serial": long_film}, {"name": "wrist", "serial": long_film})
    with serving(rig) as log, watching(rig) as client:
        for name in ("front", "wrist"):
            await_fault(client, name, "")
        pids = processes(long_film)
        while (first := client.sight("wrist").stamp.sequence) < 30:
            client.await_next("wrist", 1.0)
        os.kill(pids["wrist"], signal.SIGKILL)
        assert "another is started" in await_fault(client, "wrist", "died")
        await_fault(client, "wrist", "")
        assert client.sight("wrist").stamp.sequence > first, "nobody waits for a number that was there before"
        again = processes(long_film)
        assert again["front"] == pids["front"]
        assert again["wrist"] != pids["wrist"]
        os.kill(again["wrist"], signal.SIGSTOP)
        await_fault(client, "wrist", "stalled")
        for _ in range(10):
            time.sleep(0.05)
            client.look()
            assert client.fault("front") == ("", "")
        os.kill(again["wrist"], signal.SIGCONT)
        await_fault(client, "wrist", "")
        assert "camera front:" not in log.read_text().replace("camera front: sees", "")
    assert processes(long_film) == {}, "none is left behind"


def test_a_camera_that_is_not_there_is_named_and_found_when_it_comes(tmp_path):
    path = tmp_path / "later.mkv"
    rig = write_rig(
        tmp_path,
        {"name": "front", "serial": str(path)},
        {"name": "wrist", "driver": "realsense", "serial": "4711"},
    )
    with serving(rig), watching(rig) as client:
        assert f"there is no {path}" in await_fault(client, "front", "missing")
        assert client.picture("front").size == 0
        if "no_driver" not in client.fault("wrist"):
            assert "no RealSense has serial 4711" in await_fault(client, "wrist", "missing")
        film(tmp_path / "made.mkv", ("lively", 5.0))
        (tmp_path / "made.mkv").rename(path)
        await_fault(client, "front", "")


def test_another_resolution_than_the_rigs(tmp_path):
    path = film(tmp_path / "large.mkv", ("lively", 1.0), width=96, height=64)
    rig = write_rig(tmp_path, {"name": "front", "serial": path})
    with serving(rig), watching(rig) as client:
        detail = await_fault(client, "front", "resolution")
        assert "gives 96x64 and not 64x48; correct width and height in the rig" in detail


def test_a_server_that_stops_is_a_fault_and_costs_the_client_little(tmp_path, long_film):
    rig = write_rig(tmp_path, {"name": "front", "serial": long_film})
    client = None
    try:
        with serving(rig):
            client = CameraClient(rig.camera_server)
            await_fault(client, "front", "")
        spent = []
        for _ in range(10):
            began = time.monotonic()
            client.look()
            spent.append(time.monotonic() - began)
        assert client.fault("front")[0] == "server_silent"
        assert "serl camera serve" in client.fault("front")[1]
        assert np.median(spent) < 0.03
        with serving(rig):
            await_fault(client, "front", "")
    finally:
        if client is not None:
            client.close()


def test_hostile_messages_are_dropped(tmp_path, long_film):
    rig = write_rig(tmp_path, {"name": "front", "serial": long_film})
    with serving(rig), watching(rig) as client:
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.set(zmq.LINGER, 200)
            socket.connect(rig.camera_server)
            for frame in (b"", b"x" * 1000, MAGIC + b"\xc1", MAGIC + b"\x81\xa4type\xa5Other"):
                socket.send(frame)
                socket.send_multipart([frame, frame])
            socket.send(encode(ShowPictures(number=1, camera="front", after=2**60, wait_s=0.1)))
            assert socket.poll(2000)
            sights, pictures = decode_answer(socket.recv_multipart())
            assert (sights.number, len(pictures)) == (1, 1)
            assert not socket.poll(100)
        await_fault(client, "front", "")


def test_where_there_are_keys_only_those_with_keys_see(tmp_path, long_film, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    make_keys("robot")
    make_keys("actor")
    rig = write_rig(tmp_path, {"name": "front", "serial": long_film}, keys="actor")
    with serving(rig):
        client = CameraClient(rig.camera_server, client_keys("actor", "robot"))
        await_fault(client, "front", "")
        client.close()
        with pytest.raises(CamerasUnreachable):
            CameraClient(rig.camera_server, hello_s=0.5)


def test_nobody_there_names_the_command(tmp_path):
    rig = write_rig(tmp_path, {"name": "front", "serial": "none"})
    with pytest.raises(CamerasUnreachable, match="serl camera serve"):
        CameraClient(rig.camera_server)
    run = subprocess.run(
        [sys.executable, "-m", "serl_servers.cameras", "view", "--rig", rig.source, "--out", str(tmp_path / "a.png")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 1
    assert f"start it: serl camera serve --rig {rig.source}" in run.stderr


def test_the_pictures_of_a_film_differ():
    """What the tests tell lively from frozen by."""
    lively = list(shots(("lively", 0.2)))
    assert all(not np.array_equal(a, b) for a, b in pairwise(lively))
    same = list(shots(("lively", 0.1), ("same", 0.2)))
    assert np.array_equal(same[-1], same[-2])
