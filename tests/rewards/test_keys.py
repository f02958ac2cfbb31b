"""A person's key press, through a terminal of its own."""

import os
import pty
import termios
import time

import pytest

from serl_suite.rewards.keys import KeyReward, NoTerminal
from serl_suite.rewards.reward import Verdict, make_reward

NOTHING, SUCCESS, FAILURE = Verdict(False, 0.0), Verdict(True, 1.0), Verdict(False, 0.0, True)


@pytest.fixture
def terminal():
    """What a person types into, and the path of the device that it arrives at."""
    keyboard, device = pty.openpty()
    yield keyboard, os.ttyname(device)
    os.close(keyboard)
    os.close(device)


@pytest.fixture
def person(terminal):
    keyboard, path = terminal
    reward = KeyReward(path)

    def press(keys):
        os.write(keyboard, keys)
        time.sleep(0.02)  # the kernel hands it on
        return reward.judge({})

    yield press
    reward.close()


@pytest.mark.parametrize("key", [b"s", b" ", b"\n", b"\r"])
def test_success(person, key):
    assert person(key) == SUCCESS


@pytest.mark.parametrize("key", [b"f", b"\x7f"])
def test_failure(person, key):
    assert person(key) == FAILURE


def test_a_press_counts_once_and_the_last_one_counts(person):
    assert person(b"sf") == FAILURE
    assert person(b"") == NOTHING
    assert person(b"fxs?") == SUCCESS
    assert person(b"q") == NOTHING


def test_it_does_not_wait(terminal):
    reward = KeyReward(terminal[1])
    began = time.perf_counter()
    assert all(reward.judge({}) == NOTHING for _ in range(100))
    assert time.perf_counter() - began < 0.5
    reward.close()


def test_what_was_pressed_before_the_episode_does_not_count(terminal):
    keyboard, path = terminal
    reward = KeyReward(path)
    os.write(keyboard, b"s")
    time.sleep(0.02)
    reward.reset()
    assert reward.judge({}) == NOTHING
    reward.close()


def test_keys_come_at_once_and_the_terminal_is_given_back(terminal):
    _, path = terminal
    device = os.open(path, os.O_RDONLY | os.O_NOCTTY)
    before = termios.tcgetattr(device)
    reward = make_reward(f"key:{path}", None)
    during = termios.tcgetattr(device)
    assert before[3] & termios.ICANON
    assert not during[3] & (termios.ICANON | termios.ECHO)
    assert during[3] & termios.ISIG  # Ctrl-C works as ever
    reward.close()
    reward.close()
    assert termios.tcgetattr(device) == before
    os.close(device)


def test_no_terminal_is_said(tmp_path):
    with pytest.raises(NoTerminal, match="what `tty` prints"):
        KeyReward(str(tmp_path / "none"))
    (tmp_path / "file").write_text("s")
    with pytest.raises(NoTerminal, match="is no terminal"):
        KeyReward(str(tmp_path / "file"))


def test_a_terminal_that_went_away_is_said():
    keyboard, device = pty.openpty()
    reward = KeyReward(os.ttyname(device))
    os.close(device)
    os.close(keyboard)
    with pytest.raises(NoTerminal, match="went away"):
        reward.judge({})
