"""Looking for a hand, which may hang, and keeping nobody waiting meanwhile."""

import contextlib
import itertools
import socket
import threading
import time

import pytest
from rig import plugged, running, wait_until

pytest.importorskip("pylibfranka")

from kills import observing
from serl_servers.franka import hand as wire
from serl_servers.franka.driver import DriverError
from serl_servers.franka.hand import Hand

from serl_suite.wire.robot_messages import Recover, Stop

DEAF, NOBODY = "127.0.7.21", "127.0.7.250"
TURN_S = 0.05
"""Far below what the arm's clients notice."""


def greet(ip):
    """What comes of it, and the longest that it kept its caller."""
    hand, longest = Hand(ip, 30.0), 0.0
    greeting = hand.greeting()
    while True:
        began = time.monotonic()
        try:
            next(greeting)
        except StopIteration:
            return hand, longest
        except DriverError as error:
            return str(error), longest
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.005)


def test_a_hand_that_says_nothing_is_given_up():
    with socket.create_server((DEAF, 1338)):
        said, longest = greet(DEAF)
    assert f"no hand at {DEAF}:1338 (timed out)" in said
    assert longest < TURN_S


def test_a_hand_that_hangs_up_is_given_up():
    with socket.create_server((DEAF, 1338)) as listener:
        leaving = threading.Thread(target=lambda: listener.accept()[0].close())
        leaving.start()
        said, longest = greet(DEAF)
        leaving.join()
    assert f"no hand at {DEAF}:1338" in said
    assert longest < TURN_S


def test_no_hand_is_named():
    said, longest = greet(NOBODY)
    assert f"no hand at {NOBODY}:1338" in said
    assert "refused" in said
    assert longest < TURN_S


def test_states_are_taken_from_the_hand_alone():
    with socket.create_server((DEAF, 1338)) as listener, contextlib.ExitStack() as stack:
        ours, strangers = (stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2))
        ours.bind((DEAF, 0))
        strangers.bind(("127.0.7.24", 0))
        hand = Hand(DEAF, 30.0)
        greeting = hand.greeting()
        next(greeting)
        stream = stack.enter_context(listener.accept()[0])
        next(greeting)
        size = stream.recv(64, socket.MSG_DONTWAIT)
        _, port = wire._VERSION_AND_PORT.unpack_from(size, wire._HEADER.size)
        client = (stream.getpeername()[0], port)
        reply = wire._VERSION_AND_PORT.pack(0, wire.VERSION)
        stream.sendall(wire._HEADER.pack(0, 1, wire._HEADER.size + len(reply)) + reply)
        strangers.sendto(wire._STATE.pack(1, 0.01, 0.08, True, 20), client)
        ours.sendto(wire._STATE.pack(1, 0.05, 0.08, False, 20), client)
        for _ in greeting:
            time.sleep(0.005)
        strangers.sendto(wire._STATE.pack(2, 0.01, 0.08, True, 20), client)
        hand.look()
        assert (hand.width, hand.is_grasped, hand.states) == (pytest.approx(0.05), False, 1)
        hand.close()


def test_the_states_go_on_while_a_lost_hand_is_looked_for(tmp_path):
    here, there = "127.0.7.22", "127.0.7.23"
    with contextlib.ExitStack() as stack:
        stack.enter_context(plugged(tmp_path, here, there, "1337"))
        second = contextlib.ExitStack()
        with second:
            second.enter_context(plugged(tmp_path, here, there, "1338"))
            rig = stack.enter_context(running(tmp_path, there, over=here))
            client = stack.enter_context(observing(rig))
        # its cable is out; what is there now hangs
        stack.enter_context(socket.create_server((here, 1338)))
        client.keep_control()
        client.ask(Stop(number=client.next_number(), reason="the test"))
        wait_until(lambda: client.await_state().phase == "stopped", 5.0)
        heard = [time.monotonic()]

        def listen():
            if client.has_news(0.01):
                client.newest()
                heard.append(time.monotonic())

        client.ask(Recover(number=client.next_number(), reason="the test"), 20.0, meanwhile=listen)
        assert client.await_state().phase == "running"
        assert heard[-1] - heard[0] > 1.9, "it was looked for"
        assert max(b - a for a, b in itertools.pairwise(heard)) < 0.3
    assert "no hand at" in rig.log.read_text()
