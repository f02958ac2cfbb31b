"""The live view: right figures from metrics as they are written, on a terminal and off it."""

import io

import msgspec
import pytest
from rich.console import Console

from serl_suite.cli.live_view import LiveView, TrainingState, duration, number
from serl_suite.nodes.config import TrainConfig
from serl_suite.nodes.run_folder import RunFolder


class Feed:
    """A run whose metrics are appended to by hand, and a clock that is set by hand."""

    def __init__(self, folder):
        self.folder = folder
        self.now = 100.0

    def clock(self):
        return self.now

    def write(self, node, text):
        with (self.folder.metrics / f"{node}.jsonl").open("ab") as file:
            file.write(text)

    def learner(self, env_steps, **values):
        record = {"env_steps": env_steps, "learner/steps_per_s": 20.0, "learner/updates": 8 * env_steps}
        record |= {name.replace("__", "/"): value for name, value in values.items()}
        self.write("learner", msgspec.json.encode(record) + b"\n")

    def episode(self, env_steps, success):
        record = {
            "env_steps": env_steps,
            "episode/success": success,
            "episode/return": -2.5,
            "actor/robot_time_s": env_steps / 10,
        }
        self.write("actor", msgspec.json.encode(record) + b"\n")


@pytest.fixture
def feed(tmp_path):
    return Feed(RunFolder.create(tmp_path / "run", TrainConfig(task="Toy-v0", max_steps=2000)))


def show(feed, *, terminal=True):
    """The text that a fresh view draws."""
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=terminal, color_system=None)
    with LiveView(feed.folder, console=console, clock=feed.clock):
        pass
    return console.file.getvalue()


def test_phases(feed):
    state = TrainingState(feed.folder)
    state.read()
    assert state.phase == "starting learner and actor"
    feed.learner(0, learner__updates=0)
    state.read()
    assert state.phase == "waiting for the first episode"
    feed.episode(30, True)
    state.read()
    assert state.phase == "collecting the first steps"
    feed.learner(100)
    state.read()
    assert state.phase == "training"


def test_success_is_of_the_last_window(feed):
    state = TrainingState(feed.folder)
    for episode in range(30):
        feed.episode(10 * episode, episode >= 25)
    state.read()
    assert (sum(state.recent), len(state.recent)) == (5, 20)
    assert len(state.rates) == 30
    assert state.rates[-1] == 0.25


def test_reads_each_line_once_and_waits_for_torn_ones(feed):
    state = TrainingState(feed.folder)
    whole = msgspec.json.encode({"env_steps": 10, "episode/success": True, "episode/return": 1.0}) + b"\n"
    for cut in range(len(whole)):
        feed.write("actor", whole[cut : cut + 1])
        state.read()
        assert state.episodes == (cut == len(whole) - 1)
    state.read()
    assert state.episodes == 1


def test_a_line_torn_for_good_is_passed_over(feed):
    state = TrainingState(feed.folder)
    feed.write("actor", b'{"env_steps": 10, "epis')
    state.read()
    feed.write("actor", b"\n")
    feed.episode(20, True)
    state.read()
    assert (state.episodes, state.env_steps) == (1, 20)


def test_eta_is_of_the_budget(feed):
    state = TrainingState(feed.folder)
    assert state.eta_s is None
    feed.learner(500)
    state.read()
    assert state.eta_s == pytest.approx((2000 - 500) / 20)


def test_the_screen_shows_what_matters(feed):
    feed.learner(
        400,
        critic__loss=0.0123,
        critic__q=0.61,
        actor__temperature=0.02,
        learner__updates_per_s=161.7,
        learner__realised_utd=7.98,
        learner__updates_owed=37.0,
    )
    for episode in range(20):
        feed.episode(20 * episode, episode % 2 == 0)
    feed.write("actor", b'{"env_steps": 400, "evaluation/success_rate": 0.925}\n')
    text = show(feed)
    for figure in (
        "Toy-v0",
        "50 %  10 of the last 20",
        "400 of 2 000",
        "0.0123",
        "0.61",
        "0.02",
        "162",
        "7.98",
        "37",
    ):
        assert figure in text
    for figure in ("92 % at step 400", "38 s", "1:20 min to the end", "Ctrl-C"):
        assert figure in text


def test_without_a_terminal_it_prints_a_line_every_five_seconds(feed):
    console = Console(file=io.StringIO(), force_terminal=False)
    with LiveView(feed.folder, console=console, clock=feed.clock) as view:
        for tick in range(120):
            feed.now = 100.0 + 0.1 * tick
            view.update()
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4  # at 0, 5 and 10 s, and at the end
    assert all("step 0/2000" in line for line in lines)
    assert "\x1b" not in console.file.getvalue()


def test_on_a_terminal_it_redraws_four_times_a_second(feed, monkeypatch):
    draws = []
    monkeypatch.setattr(LiveView, "_draw", lambda self: draws.append(feed.now))
    console = Console(file=io.StringIO(), force_terminal=True)
    with LiveView(feed.folder, console=console, clock=feed.clock) as view:
        for tick in range(100):
            feed.now = 100.0 + 0.1 * tick
            view.update()
    assert 25 <= len(draws) <= 42


def test_an_unknown_success_shows_the_return(feed):
    feed.episode(30, None)
    assert "not told; last return -2.5" in show(feed)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.2, "1:00 min"), (185, "3:05 min"), (3720, "1:02:00 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.012345, "0.0123"), (161.7, "162"), (3.0, "3"), (-7.126, "-7.13")]
)
def test_numbers(value, text):
    assert number(value) == text
