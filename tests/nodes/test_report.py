"""The report of whole and of partial runs: what is on the page, and that it is a page."""

import re
import shlex
from html.parser import HTMLParser

import cv2
import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from serl_suite.agents.rlpd import RLPDConfig
from serl_suite.cli import runs
from serl_suite.nodes.command_line import train_command
from serl_suite.nodes.config import ActorConfig, EvaluationConfig, LearnerConfig, TrainConfig
from serl_suite.nodes.evaluate_run import evaluate_run
from serl_suite.nodes.evaluation import EvaluationResult
from serl_suite.nodes.metrics import MetricsWriter
from serl_suite.nodes.outcome import Outcome
from serl_suite.nodes.report import write_report
from serl_suite.nodes.results import RunResults, rolling_mean
from serl_suite.nodes.run_folder import RunFolder, RunFolderError
from serl_suite.wire.messages import EpisodeOutcome

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects text and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.addresses = [], "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def page_of(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


def finish(folder, successes, trials=100):
    """Writes the outcome and evaluation of a finished run."""
    episodes = [
        EpisodeOutcome(success=number < successes, episode_return=1.0, length=20) for number in range(trials)
    ]
    result = EvaluationResult(
        task="Toy-v0",
        seed=3,
        policy_version=120,
        rate_hz=10.0,
        knows_success=True,
        episodes=episodes,
        demo_lengths=[30, 50],
    )
    folder.evaluation.write_bytes(msgspec.json.encode(result))
    outcome = Outcome(
        reason="it passed", passed=True, env_steps=1200, updates=8800, policy_version=120, training_s=61.0
    )
    folder.outcome.write_bytes(msgspec.json.encode(outcome))


def test_a_passed_run(make_run):
    folder = make_run()
    finish(folder, 98)
    page = page_of(folder)
    assert "Passed: at least 95 %" in page.text
    assert "98 of 100 fresh episodes" in page.text
    assert "93.0 % to 99.4 %" in page.text
    assert "2 min 00 s" in page.text  # robot time of 1200 steps at 10 Hz
    assert "0.50 times the demonstrations" in page.text
    assert "8 800" in page.text
    assert "What is missing" in page.text  # nothing was filmed
    assert "There is no film" in page.text
    assert "Training has not ended" not in page.text


def test_a_failed_run(make_run):
    folder = make_run()
    finish(folder, 94)
    assert "Not passed: below 95 %" in page_of(folder).text


def test_everything_travels_with_the_page(make_run):
    folder = make_run()
    evaluate_run(folder, episodes=4, seed=0)
    page = page_of(folder)
    assert len(page.addresses) == 2
    assert all(address.startswith("data:") for address in page.addresses)


def test_a_run_that_has_only_begun(make_run):
    page = page_of(make_run(trained=False))
    assert "Not evaluated yet" in page.text
    for note in ("Training has not ended", "learner.log", "actor.log", "serl eval"):
        assert note in page.text


def test_a_run_in_the_middle_shows_its_rolling_success(make_run):
    folder = make_run()
    recent = [episode.success for episode in RunResults(folder).episodes][-20:]
    assert f"{sum(recent)} of the last 20" in page_of(folder).text


def test_an_environment_without_success_is_judged_by_return(make_run):
    folder = make_run("SilentToy-v0")
    evaluate_run(folder, episodes=4, seed=0)
    page = page_of(folder)
    assert "does not tell success" in page.text
    assert "mean return of 4 fresh episodes" in page.text


def test_names_are_escaped(tmp_path):
    task = '<script>alert("x")</script>&-v0'
    folder = RunFolder.create(tmp_path / "a<b>&c", TrainConfig(task=task, demos="<img src=x>"))
    text = write_report(folder).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img src=x>" not in text
    assert task in Page(text).text


@pytest.mark.parametrize("name", ["evaluation.json", "outcome.json"])
def test_a_damaged_result_is_named(make_run, name):
    folder = make_run()
    (folder.path / name).write_text('{"episodes": [')
    with pytest.raises(RunFolderError, match=name):
        write_report(folder)


def test_metrics_cut_at_any_byte_still_make_a_report(make_run):
    folder = make_run()
    path = folder.metrics / "actor.jsonl"
    path.write_bytes(path.read_bytes()[:-37])
    assert len(RunResults(folder).episodes) >= 59
    page_of(folder)


def test_the_curve_is_a_picture_with_something_on_it(make_run):
    empty, full = make_run(trained=False, name="empty"), make_run(name="full")
    pictures = []
    for folder in (empty, full):
        write_report(folder)
        pictures.append(cv2.imread(str(folder.path / "curve.png")))
    assert pictures[0].shape == pictures[1].shape == (960, 1600, 3)
    blue = [((p[..., 0] > 150) & (p[..., 2] < 60)).sum() for p in pictures]
    assert blue[0] == 0
    assert blue[1] > 1000


def test_rolling_mean_by_hand():
    assert rolling_mean([1.0, 0.0, 0.0, 1.0, 1.0], 3) == pytest.approx([1.0, 1 / 2, 1 / 3, 1 / 3, 2 / 3])


configs = st.builds(
    TrainConfig,
    task=st.from_regex(r"[A-Za-z]{1,8}/?[A-Za-z]{1,8}-v[0-9]", fullmatch=True),
    seed=st.integers(0, 2**31),
    demos=st.sampled_from([None, "none", "demos/with space", "it's"]),
    demo_noise=st.floats(0, 2),
    agent=st.builds(
        RLPDConfig,
        hidden=st.lists(st.integers(1, 512), min_size=1, max_size=3).map(tuple),
        layer_norm=st.booleans(),
        backup_entropy=st.booleans(),
        target_entropy=st.none() | st.floats(-10, 10),
        learning_rate=st.floats(1e-6, 1e-1),
    ),
    learner=st.builds(LearnerConfig, bind=st.just("tcp://127.0.0.1:7000"), threads=st.integers(1, 8)),
    actor=st.builds(
        ActorConfig,
        pace=st.sampled_from(["lockstep", "realtime"]),
        cameras=st.sampled_from([(), ("wrist",), ("wrist", "front")]),
    ),
    evaluation=st.builds(EvaluationConfig, pass_at=st.floats(0, 1), episodes=st.integers(1, 500)),
)


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(configs)
def test_the_command_on_the_page_gives_the_same_configuration(tmp_path_factory, config):
    words = shlex.split(train_command(config))
    assert words[:2] == ["serl", "train"]
    path = tmp_path_factory.mktemp("run") / "again"
    folder, is_new = runs.open_run([*words[2:], "--run", str(path)], prog="serl train", description="")
    assert is_new
    assert folder.config == config


def test_the_reported_command_is_shown_as_typed(make_run):
    text = page_of(make_run()).text
    assert re.search(r"serl train Toy-v0 --seed 3 --max-steps 1500 --actor\.block-steps 5", text)


def test_robot_time_is_known_without_the_actors_log(make_run):
    folder = make_run()
    finish(folder, 98)
    (folder.metrics / "actor.jsonl").unlink()
    text = page_of(folder).text
    assert "2 min 00 s" in text
    assert "another machine" in text


EXACTLY = "the same versions give the same run bit for bit"


def test_only_an_uninterrupted_run_is_said_to_repeat_bit_for_bit(make_run):
    folder = make_run()
    assert EXACTLY not in page_of(folder).text  # it has not ended
    finish(folder, 98)
    assert EXACTLY in page_of(folder).text
    with MetricsWriter(folder.metrics, "actor"):
        pass  # as an actor that was started again
    assert EXACTLY not in page_of(folder).text
    assert "was interrupted" in page_of(folder).text


def test_a_run_paced_by_the_clock_is_not_said_to_repeat_bit_for_bit(tmp_path):
    config = TrainConfig(task="Toy-v0", actor=ActorConfig(pace="realtime"))
    folder = RunFolder.create(tmp_path / "run", config)
    finish(folder, 98)
    assert EXACTLY not in page_of(folder).text
