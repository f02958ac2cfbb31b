"""The films are what any player takes, of the length that was filmed, small enough, and show the verdict."""

import av
import numpy as np
import pytest
from PIL import Image

from serl_suite.nodes.evaluate_run import FILMED_EPISODES, evaluate_run
from serl_suite.nodes.video import GIF_MAX_BYTES, HOLD_S, Film


def test_an_evaluated_run_is_filmed(make_run):
    folder = make_run()
    result = evaluate_run(folder, episodes=6, seed=3)
    assert result is not None
    hold = round(HOLD_S * result.rate_hz)
    frames = sum(episode.length + 1 + hold for episode in result.episodes[:FILMED_EPISODES])
    with av.open(str(folder.path / "evaluation.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 10
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(decoded) == frames
    _, width, _ = decoded[0].shape
    assert width >= 320
    first = result.episodes[0].length
    assert not np.array_equal(decoded[0][:, : width // 2], decoded[first][:, : width // 2]) or first == 3
    with Image.open(folder.path / "evaluation.gif") as gif:
        assert gif.n_frames > 1
    assert (folder.path / "evaluation.gif").stat().st_size <= GIF_MAX_BYTES


def test_the_caption_changes_with_the_verdict(tmp_path):
    picture = np.full((64, 64, 3), 200, np.uint8)
    with Film(tmp_path / "a.mp4", tmp_path / "a.gif", 10.0) as film:
        film.add(picture, "episode 1", "0.0 s")
        film.add(picture, "episode 1", "success after 0.1 s", "#57d38c")
    with av.open(str(tmp_path / "a.mp4")) as container:
        before, after = (frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0))
    above, bar = slice(0, 310), slice(322, None)
    assert np.abs(before[above] - after[above]).max() <= 8
    assert np.abs(before[bar] - after[bar]).max() > 60


@pytest.mark.parametrize("shape", [(480, 480), (101, 333), (7, 5)])
def test_any_size_makes_a_film(tmp_path, shape):
    rng = np.random.default_rng(0)
    with Film(tmp_path / "a.mp4", tmp_path / "a.gif", 12.5) as film:
        for _ in range(3):
            film.add(rng.integers(0, 255, (*shape, 3), dtype=np.uint8), "x")
        assert film.seconds == pytest.approx(0.24)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3


def test_pure_noise_still_makes_a_small_gif(tmp_path):
    rng = np.random.default_rng(0)
    with Film(tmp_path / "a.mp4", tmp_path / "a.gif", 10.0) as film:
        for _ in range(40):
            film.add(rng.integers(0, 255, (320, 320, 3), dtype=np.uint8), "noise")
    assert (tmp_path / "a.gif").stat().st_size <= GIF_MAX_BYTES


def test_no_film_where_nothing_can_be_rendered(make_run, caplog):
    folder = make_run("SilentToy-v0")
    assert evaluate_run(folder, episodes=2, seed=0) is not None
    assert not (folder.path / "evaluation.mp4").exists()
    assert "renders no pictures" in caplog.text
