"""Frames out of episode files: labels, bad pictures, and a split that parts no start from itself."""

import shutil

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lamp_env import CAMERAS

from serl_suite.data.episodes import read_episode, write_episode
from serl_suite.nodes.environment import Environment
from serl_suite.nodes.reward_recording import record_attempts
from serl_suite.rewards.config import BadClassifier
from serl_suite.rewards.frames import Clip, Frames, read_frames, split
from serl_suite.rewards.labels import Labels, write_labels
from serl_suite.rewards.pictures import BadPicture


def test_every_recorded_frame_is_there_once_with_its_own_label(recorded, frames):
    files = sorted(recorded.glob("*.parquet"))
    assert [clip.path for clip in frames.clips] == files
    for clip, file in zip(frames.clips, files, strict=True):
        steps = read_episode(file).steps
        assert clip.places.tolist() == [step.index for step in steps]
        assert clip.labels.tolist() == [int(step.success) for step in steps]
        for camera in CAMERAS:
            assert np.array_equal(clip.pictures[camera], [step.observation[camera] for step in steps])


def test_a_bad_try_begins_as_the_good_one_and_ends_without_success(recorded, frames):
    good, bad = frames.clips[::2], frames.clips[1::2]
    for first, second in zip(good, bad, strict=True):
        assert first.group == second.group
        assert first.states["x"][0] == second.states["x"][0]
        assert first.labels[-1] == 1
    assert sum(clip.labels[-1] == 0 for clip in bad) > len(bad) / 2


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 3)), min_size=10, max_size=40).filter(
        lambda groups: min(sum(s for s, _ in groups), sum(not s for s, _ in groups)) >= 3
    ),
    st.integers(0, 5),
)
def test_a_split_shares_out_everything_and_parts_no_group(groups, seed):
    clips = [
        Clip(f"{g}/{k}", f"{g}", None, np.arange(2), np.array([0, int(succeeds)]), {}, {})
        for g, (succeeds, count) in enumerate(groups)
        for k in range(count)
    ]
    frames = Frames(clips, None, ("failure", "success"), "success")
    parts = split(frames, 0.2, 0.2, seed)
    names = [*parts.training, *parts.calibration, *parts.test]
    assert sorted(names) == sorted(clip.name for clip in clips)
    owners = [
        {name.split("/")[0] for name in part} for part in (parts.training, parts.calibration, parts.test)
    ]
    assert sum(map(len, owners)) == len(groups)
    assert parts == split(frames, 0.2, 0.2, seed)


def test_too_few_episodes_say_how_many_are_needed(frames):
    with pytest.raises(BadClassifier, match="too few"):
        split(frames._replace(clips=frames.clips[:2]), 0.2, 0.2, 0)


def changed(recorded, folder, change):
    """A folder with one episode, its steps changed."""
    episode = read_episode(recorded / "000000.parquet")
    write_episode(folder / "a.parquet", msgspec.structs.replace(episode, steps=change(episode.steps)))
    return [folder]


def seen(step, **pictures):
    return msgspec.structs.replace(step, observation=step.observation | pictures)


def test_a_black_picture_is_named_with_its_file(recorded, tmp_path):
    black = np.full((32, 32, 3), 3, np.uint8)
    with pytest.raises(BadPicture, match=r"a\.parquet, step 4: camera wrist shows black"):
        read_frames(changed(recorded, tmp_path, lambda s: [*s[:4], seen(s[4], wrist=black), *s[5:]]))


def test_steps_of_a_stopped_camera_are_left_out_with_a_warning(recorded, tmp_path, caplog):
    def freeze(steps):
        return [*steps[:2], *(seen(s, front=steps[2].observation["front"]) for s in steps[2:])]

    clip = read_frames(changed(recorded, tmp_path, freeze)).clips[0]
    count = len(read_episode(tmp_path / "a.parquet").steps)
    assert clip.places.tolist() == list(range(12))
    assert "a.parquet, step 12: camera front has shown the same picture for 1.0 s" in caplog.text
    assert f"left out: {count - 12} of {count}" in caplog.text


def test_steps_that_do_not_tell_are_left_out(recorded, tmp_path):
    def untold(steps):
        return [msgspec.structs.replace(s, success=None) if s.index < 5 else s for s in steps]

    assert read_frames(changed(recorded, tmp_path, untold)).clips[0].places[0] == 5
    with pytest.raises(BadClassifier, match="tells whether it succeeded"):
        read_frames(
            changed(recorded, tmp_path, lambda s: [msgspec.structs.replace(x, success=None) for x in s])
        )


def test_labels_beside_the_episodes_count_more(recorded, tmp_path):
    folder = changed(recorded, tmp_path, list)
    count = len(read_episode(tmp_path / "a.parquet").steps)
    told = [-1, 0, *[1] * (count - 3), 2]
    write_labels(
        tmp_path, Labels(classes=("far", "near", "there"), success="there", frames={"a.parquet": told})
    )
    frames = read_frames(folder)
    assert (frames.classes, frames.success) == (("far", "near", "there"), "there")
    assert frames.labels.tolist() == told[1:]
    write_labels(tmp_path, Labels(classes=("far", "there"), success="there", frames={"a.parquet": [0]}))
    with pytest.raises(BadClassifier, match=r"does not fit a\.parquet"):
        read_frames(folder)
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(BadClassifier, match="mend it"):
        read_frames(folder)


def test_other_cameras_are_refused_by_name(recorded):
    with pytest.raises(BadClassifier, match="no camera 'side'"):
        read_frames([recorded], ["front", "side"])


def test_labels_of_no_file_are_refused(recorded, tmp_path):
    shutil.copy(recorded / "000000.parquet", tmp_path)
    (tmp_path / "labels.json").write_text('{"frames": {"000000": [0]}}')
    with pytest.raises(BadClassifier, match="labels 000000, and there is no such file"):
        read_frames([tmp_path])


def test_pictures_of_another_size_are_refused(recorded, tmp_path):
    environment = Environment("lamp_env:Lamp-v0", cameras=CAMERAS, image_size=24)
    next(record_attempts(environment, tmp_path, starts=1, noise=0.1, seed=0))
    with pytest.raises(BadClassifier, match=r"\(24, 24, 3\) uint8, and not \(32, 32, 3\)"):
        read_frames([recorded, tmp_path])


def test_nothing_there_says_how_to_record(tmp_path):
    with pytest.raises(BadClassifier, match="serl reward record"):
        read_frames([tmp_path])
