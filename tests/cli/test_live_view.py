"""The live view: right figures from metrics as they are written, on a terminal and off it."""

import io
import threading

import msgspec
import pytest
from rich.console import Console

from serl_suite.cli.live_view import LiveView, duration, number
from serl_suite.cli.training_state import TrainingState
from serl_suite.nodes.config import TrainConfig
from serl_suite.nodes.run_folder import RunFolder


class Feed:
    """A run whose metrics are appended to by hand, and a clock that is set by hand."""

    def __init__(self, folder):
        self.folder = folder
        self.now = 100.0
        self.stop = threading.Event()

    def clock(self):
        return self.now

    def write(self, node, text):
        with (self.folder.metrics / f"{node}.jsonl").open("ab") as file:
            file.write(text)

    def learner(self, env_steps, **values):
        record = {
            "env_steps": env_steps,
            "learner/training_s": env_steps / 20,
            "learner/updates": 8 * env_steps,
        }
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


@pytest.fixture
def view(feed):
    """A view on a terminal; `view.text()` is what it drew since the last call."""
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True, color_system=None)
    view = LiveView(feed.folder, feed.stop, console=console, clock=feed.clock)

    def text():
        drawn = console.file.getvalue()
        console.file.seek(0)
        console.file.truncate()
        return drawn

    view.text = text
    return view


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


def test_eta_is_of_the_budget_at_the_speed_of_the_last_minute(feed):
    state = TrainingState(feed.folder)
    for second in range(300):
        if second < 200:
            steps = 2 * second
        feed.learner(steps + 5 * max(0, second - 200), learner__training_s=second)
        state.read()
        assert (state.eta_s is None) == (second < 6)
    assert state.eta_s == pytest.approx((2000 - state.env_steps) / 5)


def test_eta_leaves_out_the_first_steps_and_evaluations(feed):
    state = TrainingState(feed.folder)
    for second in range(100):  # before the first update everything is quicker
        feed.learner(second, learner__updates=0, learner__training_s=second / 100)
    for second in range(1, 21):
        feed.learner(100 + 10 * second, learner__training_s=second)
    state.read()
    eta_s = state.eta_s
    assert eta_s == pytest.approx((2000 - 300) / 10)
    for second in range(21, 81):
        feed.learner(300, learner__training_s=second)
        state.read()
        assert state.eta_s == eta_s
    feed.learner(310, learner__training_s=81)
    state.read()
    assert state.eta_s == pytest.approx((2000 - 310) / 10)


def test_eta_counts_steps_that_are_slow_by_themselves(feed):
    state = TrainingState(feed.folder)
    for second in range(60):
        feed.learner(second // 2, learner__training_s=second)
    state.read()
    assert state.eta_s == pytest.approx((2000 - 29) / 0.5, rel=0.05)


def test_a_resumed_run_goes_on_with_its_clock_but_shows_no_figures_of_before(feed):
    feed.learner(1200, learner__updates_per_s=161.7, critic__loss=0.0123)
    for episode in range(10):
        feed.episode(100 * episode, True)
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True, color_system=None)
    with LiveView(feed.folder, feed.stop, console=console, clock=feed.clock) as view:
        first = console.file.getvalue()
        feed.learner(1190, learner__training_s=59.5)
        feed.episode(1190, True)
        feed.now += 5.0
        view.update()
    for figure in ("starting learner and actor, 1:00 min", "1 200 of 2 000", "10 of the last 10", "1:30 min"):
        assert figure in first
    for figure in ("162", "0.0123", "to the end"):
        assert figure not in first
    assert "training, 1:05 min" in console.file.getvalue()


def test_a_stop_is_answered_at_once(feed, view):
    with view:
        view.text()
        feed.stop.set()
        view.update()
        assert "stopping" in view.text()
        view.update()
        assert view.text() == ""
    assert "stopped" in view.text()


def test_the_screen_shows_what_matters(feed, view):
    with view:
        feed.learner(360, learner__training_s=30.0)
        feed.learner(
            400,
            learner__training_s=40.0,
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
        feed.now += 1.0
        view.update()
        text = view.text()
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
    for figure in ("92 % at step 400", "38 s", "6:40 min to the end", "Ctrl-C"):
        assert figure in text


def test_without_a_terminal_it_prints_a_line_every_five_seconds(feed):
    console = Console(file=io.StringIO(), force_terminal=False)
    with LiveView(feed.folder, feed.stop, console=console, clock=feed.clock) as view:
        for tick in range(120):
            feed.now = 100.0 + 0.1 * tick
            view.update()
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4  # at 0, 5 and 10 s, and at the end
    assert all("step 0/2000" in line for line in lines)
    assert "\x1b" not in console.file.getvalue()


def test_on_a_terminal_it_redraws_four_times_a_second(feed, monkeypatch):
    draws = []
    monkeypatch.setattr(LiveView, "_draw", lambda self, phase=None: draws.append(feed.now))
    console = Console(file=io.StringIO(), force_terminal=True)
    with LiveView(feed.folder, feed.stop, console=console, clock=feed.clock) as view:
        for tick in range(100):
            feed.now = 100.0 + 0.1 * tick
            view.update()
    assert 25 <= len(draws) <= 42


def test_an_unknown_success_shows_the_return(feed, view):
    with view:
        feed.episode(30, None)
    assert "not told; last return -2.5" in view.text()


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
