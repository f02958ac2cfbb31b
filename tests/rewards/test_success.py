"""The classifier in the loop: frames in a row, the gate, bad pictures, and frames kept where it was wrong."""

import msgspec
import numpy as np
import pytest
from lamp_env import CAMERAS

from serl_suite.cli.main import main
from serl_suite.data.episodes import SpecMismatch, read_dataset
from serl_suite.nodes.config import ActorConfig, TrainConfig
from serl_suite.nodes.environment import Environment
from serl_suite.nodes.reward_relabel import relabelled
from serl_suite.nodes.run_folder import RunFolder
from serl_suite.rewards.classifier import RewardModel
from serl_suite.rewards.config import BadClassifier
from serl_suite.rewards.frames import read_frames
from serl_suite.rewards.gate import parse_gate
from serl_suite.rewards.reward import make_reward
from serl_suite.rewards.scores import _first_run
from serl_suite.rewards.success import SuccessReward


class Told:
    """Stands in for a model: says what it is told."""

    def __init__(self, model, probabilities, gate="", hold=2):
        self.card = msgspec.structs.replace(
            model.card, threshold=0.5, config=msgspec.structs.replace(model.card.config, hold=hold)
        )
        self.gate, self._left = parse_gate(gate), list(probabilities)

    def success_probability(self, pictures):
        return np.array([self._left.pop(0)])


def verdicts(reward, observations):
    reward.reset()
    return [reward.judge(observation).success for observation in observations]


@pytest.fixture
def observations(lamp):
    """Eight frames of the lamp that goes to the right."""
    return [lamp.reset(seed=1), *(lamp.step(np.ones(1, np.float32))[0] for _ in range(7))]


@pytest.mark.parametrize(
    ("hold", "expected"), [(1, "01011101"), (2, "00001100"), (3, "00000100")], ids=["one", "two", "three"]
)
def test_so_many_frames_in_a_row(trained, lamp, observations, hold, expected):
    reward = SuccessReward(Told(trained, [0, 0.9, 0.1, 0.5, 1, 1, 0, 1], hold=hold), lamp.spec)
    assert verdicts(reward, observations) == [c == "1" for c in expected]


def test_a_new_episode_begins_the_row_anew(trained, lamp, observations):
    reward = SuccessReward(Told(trained, [1, 1, 1, 1], hold=2), lamp.spec)
    assert verdicts(reward, observations[:1]) == [False]
    assert verdicts(reward, observations[:2]) == [False, True]


def test_outside_the_gate_nothing_is_a_success(trained, lamp, observations):
    xs = [float(observation["x"][0]) for observation in observations]
    reward = SuccessReward(Told(trained, [1] * 8, gate=f"x[0] > {xs[3]}, x[0] < {xs[6]}", hold=1), lamp.spec)
    assert verdicts(reward, observations) == [False] * 4 + [True] * 2 + [False] * 2


@pytest.mark.parametrize("text", ["x[0]", "x > 3", "x[0] >= 3", "x[0] > three", "x[0] > 1, "])
def test_a_gate_that_cannot_be_read(text):
    with pytest.raises(BadClassifier, match="no side of a gate"):
        parse_gate(text)


@pytest.mark.parametrize("text", ["y[0] > 1", "x[1] > 1", "front[0] > 1"])
def test_a_gate_on_what_is_not_observed(text, lamp):
    with pytest.raises(BadClassifier, match=r"does not observe; it observes x\[0\.\.0\]"):
        parse_gate(text).check(lamp.spec)


def test_the_real_one_judges_an_episode(trained, lamp, tmp_path):
    trained.save(tmp_path / "m.safetensors")
    reward = make_reward(f"classifier:{tmp_path / 'm.safetensors'}", lamp.spec)
    wrong = 0
    for seed in range(500, 510):
        reward.reset()
        reward.judge(lamp.reset(seed=seed))
        success, truth, steps = False, False, 0
        while not success and steps < 30:
            observation, _, _, _, truth = lamp.step(np.array([0.8], np.float32))
            success, steps = reward.judge(observation, truth).success, steps + 1
        wrong += not (success and truth)
    assert wrong == 0


def test_a_run_takes_it_as_its_only_reward(trained, tmp_path):
    """`--reward classifier:MODEL`: reward and end come from the pictures."""
    trained.save(tmp_path / "m.safetensors")
    environment = Environment(
        "lamp_env:Lamp-v0", cameras=("front", "wrist"), reward=f"classifier:{tmp_path / 'm.safetensors'}"
    )
    environment.reset(seed=7)
    rewards, over = [], False
    while not over:
        _, reward, over, truncated, success = environment.step(np.array([0.8], np.float32))
        rewards.append(reward)
        assert not truncated
        assert reward == float(success)
    assert rewards[-1] == 1.0
    assert sum(rewards) == 1.0
    assert environment.truth is True


def test_other_cameras_and_sizes_are_refused(trained):
    one = Environment("lamp_env:Lamp-v0", cameras=("front",))
    with pytest.raises(BadClassifier, match=r"Lamp-v0 has front, and no camera 'wrist'.*\(front, wrist\)"):
        SuccessReward(trained, one.spec)
    small = Environment("lamp_env:Lamp-v0", cameras=("front", "wrist"), image_size=24)
    with pytest.raises(BadClassifier, match=r"\(24, 24, 3\) uint8, and not \(32, 32, 3\)"):
        SuccessReward(trained, small.spec)
    none = Environment("lamp_env:Lamp-v0")
    with pytest.raises(BadClassifier, match="has no camera, and no camera 'front'"):
        SuccessReward(trained, none.spec)


def test_a_run_does_not_go_on_with_another_classifier(trained, tmp_path, capsys):
    model, run = tmp_path / "m.safetensors", tmp_path / "run"
    trained.save(model)
    config = TrainConfig(
        task="lamp_env:Lamp-v0",
        demos="none",
        reward=f"classifier:{model}",
        actor=ActorConfig(cameras=CAMERAS, image_size=32),
    )
    RunFolder.create(run, config).hold_files()
    RunFolder(run).hold_files()
    model.unlink()
    other = msgspec.structs.replace(trained.card, threshold=trained.card.threshold / 2)
    RewardModel(trained.network, other).save(model)
    for command in (["train", "--resume"], ["learner", "--resume"], ["actor", "--run"], ["eval"]):
        assert main([*command, str(run)]) == 1
        assert "not the classifier" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["classifier", "classifier:", "oracle", ""])
def test_no_such_reward(name, lamp):
    with pytest.raises(BadClassifier, match="choose task, classifier:MODEL, or key"):
        make_reward(name, lamp.spec)


def test_disagreements_are_kept_and_can_be_learned_from(trained, lamp, observations, recorded, tmp_path):
    reward = SuccessReward(Told(trained, [1, 0, 1, 0, 0, 0, 0, 1]), lamp.spec, tmp_path)
    truths = [False, False, True, True, False, False, None, None]
    reward.reset()
    for observation, truth in zip(observations, truths, strict=True):
        reward.judge(observation, truth)
    reward.reset()
    reward.close()
    (clip,) = read_frames([tmp_path]).clips
    assert clip.labels.tolist() == [0, 1]
    assert clip.places.tolist() == [0, 3], "they are no neighbours"
    assert np.array_equal(clip.pictures["front"], [observations[0]["front"], observations[3]["front"]])
    assert len(read_frames([recorded, tmp_path]).clips) == 25
    with pytest.raises(SpecMismatch, match="action"):  # they are no demonstrations
        read_dataset(tmp_path, lamp.spec)


def test_a_run_judged_again(trained, frames, recorded):
    """Ends at the classifier's success, with reward 1; a success that it does not see ends as cut off by time."""
    file = recorded / "000000.parquet"
    episode = read_dataset(file)[0]
    n = len(episode.steps)
    seen = relabelled(file, episode, Told(trained, [0] * 5 + [1] * n))
    assert [s.index for s in seen.steps] == list(range(7))
    assert [s.reward for s in seen.steps] == [0.0] * 6 + [1.0]
    assert (seen.steps[-1].terminated, seen.steps[-1].truncated, seen.success) == (True, False, True)
    unseen = relabelled(file, episode, Told(trained, [0] * (n + 1)))
    assert len(unseen) == len(episode)
    assert (unseen.steps[-1].terminated, unseen.steps[-1].truncated, unseen.success) == (False, True, False)
    assert unseen.episode_return == 0.0
    true = relabelled(file, episode, trained)
    first = next(s.index for s in episode.steps if s.success)
    assert abs(true.steps[-1].index - first) <= 2


def ended_by_success(recorded, **last):
    """A recorded episode as a run has it: over at its first success."""
    episode = read_dataset(recorded / "000000.parquet")[0]
    first = next(s.index for s in episode.steps if s.success)
    end = msgspec.structs.replace(episode.steps[first], terminated=True, truncated=False, reward=1.0, **last)
    return msgspec.structs.replace(episode, steps=[*episode.steps[:first], end]), first


def test_an_episode_that_ended_with_its_first_success_frame_stays_a_success(trained, recorded):
    episode, first = ended_by_success(recorded)
    again = relabelled(recorded / "000000.parquet", episode, Told(trained, [0] * first + [1, 1, 1], hold=3))
    assert again.success
    assert again.episode_return == 1.0


def test_a_rewarded_end_without_a_label_that_is_not_seen_is_cut_off_by_time(trained, recorded):
    episode, first = ended_by_success(recorded, success=None)
    again = relabelled(recorded / "000000.parquet", episode, Told(trained, [0] * (first + 2)))
    assert (again.steps[-1].terminated, again.steps[-1].truncated, again.episode_return) == (False, True, 0.0)


def test_a_classifier_of_another_task_is_refused(trained, lamp):
    other = msgspec.structs.replace(lamp.spec, task="Other-v0")
    with pytest.raises(BadClassifier, match="successes of lamp_env:Lamp-v0, and this is Other-v0"):
        SuccessReward(trained, other)


def test_a_stopped_camera_is_no_success_in_a_run_judged_again(trained, recorded, caplog):
    file = recorded / "000000.parquet"
    episode = read_dataset(file)[0]
    still = episode.steps[2].observation["wrist"]
    steps = [
        s if s.index < 2 else msgspec.structs.replace(s, observation=s.observation | {"wrist": still})
        for s in episode.steps
    ]
    told = Told(trained, [0] * 12 + [1] * len(steps))
    assert not relabelled(file, msgspec.structs.replace(episode, steps=steps), told).success
    assert "000000.parquet, step 12: camera wrist has shown the same picture for 1.0 s" in caplog.text


@pytest.mark.parametrize(
    ("seen", "places", "hold", "frame"),
    [("11", (0, 1), 2, 1), ("11", (0, 2), 2, None), ("1011", (0, 1, 2, 3), 2, 3), ("111", (4, 6, 7), 2, 2)],
)
def test_frames_that_are_left_out_part_a_row(seen, places, hold, frame):
    assert _first_run(np.array([c == "1" for c in seen]), np.array(places), hold) == frame
