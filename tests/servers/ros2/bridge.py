"""The bridge as the process that a user starts, and targets as somebody publishes them."""

import contextlib
import time

from rig import end, start

NAMES = [f"fr3_joint{i}" for i in range(1, 8)]
READY = (0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785)
PERIOD_S = 0.01


@contextlib.contextmanager
def bridging(rig, *options):
    """A bridge; its process and its log."""
    log = rig.log.with_name(f"bridge_{time.monotonic_ns()}.log")
    arguments = ["bridge", "--transport", "cyclonedds", "--address", rig.address, *options]
    process = start(["serl_servers.ros2", *arguments], log, "bridging")
    try:
        yield process, log
    finally:
        if process.poll() is None:
            assert end(process) == 0
        assert "Traceback" not in log.read_text()


def stream(talker, make, seconds, until=lambda: False):
    """Says what is made anew each time, 100 times a second."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not until():
        talker.say(make())
        time.sleep(PERIOD_S)
