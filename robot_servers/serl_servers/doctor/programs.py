"""The programs of a rig that run already: the robot server, and the twin's scene."""

import socket
from collections.abc import Iterator

from serl_servers.doctor.arm import check_arm, check_hand
from serl_servers.doctor.finding import Finding, failed, ok, warning
from serl_suite.rig import Rig
from serl_suite.wire.keys import ClientKeys, KeysError, client_keys
from serl_suite.wire.robot_client import RobotClient, RobotUnreachable
from serl_suite.wire.robot_messages import ServerReport, ShowStatus

__all__ = ["check_programs"]

TIMEOUT_S = 1.0


def check_programs(rig: Rig) -> Iterator[Finding]:
    """Yields what the robot server says, or the arm itself where no server has it."""
    try:
        keys = client_keys(rig.keys, rig.server_key) if rig.keys is not None else None
    except KeysError as error:
        yield failed("keys", str(error))
        return
    report = _report(rig, keys)
    if report is None:
        yield from _without_server(rig)
    else:
        yield from _explained(rig, report)
    if rig.scene is not None:
        yield _scene(rig)


def _without_server(rig: Rig) -> Iterator[Finding]:
    if rig.driver == "pylibfranka":
        yield from check_arm(rig.arm)
        if rig.hand:
            yield check_hand(rig.arm)
    yield warning("server", f"none at {rig.server}; start it: {rig.serve}")


def _report(rig: Rig, keys: ClientKeys | None) -> ServerReport | None:
    try:
        client = RobotClient(rig.server, keys, name="doctor")
    except RobotUnreachable:
        return None
    try:
        answer = client.ask(ShowStatus(number=client.next_number()))
    except RobotUnreachable:
        return None
    finally:
        client.close()
    assert isinstance(answer, ServerReport)
    return answer


def _explained(rig: Rig, report: ServerReport) -> Iterator[Finding]:
    if rig.driver == "pylibfranka" and report.ip != rig.arm:
        yield failed(
            "server", f"the one at {rig.server} has the arm at {report.ip}, not {rig.arm}; end it, and start it again: "
            f"{rig.serve}"
        )  # fmt: skip
        return
    by = f", controlled by {report.controller}" if report.controller is not None else ""
    yield ok("server", f"{rig.server} has the arm{by}")
    if report.fault:
        yield failed(
            "arm", f"stopped by {report.fault} ({report.detail}); find out why, then serl robot recover"
        )
    else:
        yield ok("arm", f"{report.ip} {report.phase}")
    for line in report.realtime:
        yield (warning if " NOT " in line else ok)("control", line)
    if (report.box_lower, report.box_upper) != (rig.control.box_lower, rig.control.box_upper):
        yield failed(
            "workspace", f"the server's is {report.box_lower} to {report.box_upper} m, not that of {rig.source}; start "
            f"it again: {rig.serve}"
        )  # fmt: skip


def _scene(rig: Rig) -> Finding:
    assert rig.scene is not None
    host, _, port = rig.scene.removeprefix("tcp://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), TIMEOUT_S):
            return ok("scene", f"a twin shows it at {rig.scene}")
    except OSError as error:
        mode = " --mode lockstep" if rig.pace == "lockstep" else ""
        return failed(
            "scene",
            f"nothing at {rig.scene} ({error}); start a twin: serl twin franka --port-ip {rig.arm}{mode}",
        )
