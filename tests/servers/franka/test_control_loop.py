"""The loop by itself, in front of an arm in a vice: it echoes torques and does not move."""

import numpy as np
import pytest
from serl_hardware.franka import fr3
from serl_servers.franka.config import TICK_S, joint_limits
from serl_servers.franka.control_loop import ControlLoop
from serl_servers.franka.driver import ArmStopped, make_measurement
from serl_servers.franka.kinematics import flange_pose
from serl_servers.franka.mailbox import Mailbox, make_record, read_text
from serl_servers.franka.records import CommandRecord, Gains, Phase, StateRecord

from serl_suite.control import ControlConfig, InvalidControlConfig, make_parameters


class Vice:
    """An arm that cannot move. Every `loses`-th torque gets lost: it then holds the one before."""

    def __init__(self, loses=0):
        self.m = make_measurement()
        self.m.q[:] = fr3().q_ready
        position, quaternion = flange_pose(self.m.q)
        self.m.position[:], self.m.quaternion[:] = position, quaternion
        rng = np.random.default_rng(0)
        self.m.jacobian[:] = rng.normal(size=(6, 7)) * 0.3
        self.m.mass[:] = np.eye(7)
        self.loses, self.written = loses, 0
        self.steps: list[float] = []
        """Greatest change of each torque that arrived, against the one held."""
        self.motions = self.finished = self.recoveries = 0
        self.reflex = ""

    def start(self):
        self.motions += 1
        self.m.tau_echoed[:] = 0.0

    def read(self):
        self.m.time[0] += TICK_S
        if self.reflex:
            fault, self.reflex = self.reflex, ""
            raise ArmStopped(fault, "it hit something")
        return self.m

    def write(self, tau):
        self.written += 1
        if not self.loses or self.written % self.loses:
            self.steps.append(float(np.abs(tau - self.m.tau_echoed).max()))
            self.m.tau_echoed[:] = tau

    def finish(self, tau):
        self.finished += 1

    def recover(self):
        self.recoveries += 1

    def set_load(self, load):
        pass

    def close(self):
        pass


class Bench:
    """The loop with the service's ends of its mailboxes."""

    def __init__(self, config=None, **vice):
        self.arm = Vice(**vice)
        self._asked, self.command = make_record(CommandRecord)
        self._told, self.state = make_record(StateRecord)
        self._inbox, self._outbox = Mailbox(self._asked.size), Mailbox(self._told.size)
        self.loop = ControlLoop(
            self.arm, make_parameters(config or ControlConfig(), joint_limits(), TICK_S),
            Mailbox(self._asked.size, self._inbox.fd), Mailbox(self._told.size, self._outbox.fd), lambda: None,
        )  # fmt: skip
        self._state = Mailbox(self._told.size, self._outbox.fd)
        self.command.posture[:] = np.nan
        self.loop.prepare()
        self.loop.start()

    def follow(self, position, quaternion):
        self.command.setpoint[0] += 1
        self.command.following[0] = 1
        self.command.position[:], self.command.quaternion[:] = position, quaternion

    def run(self, ticks):
        for _ in range(ticks):
            self.command.beat[0] += 1
            self._inbox.write(self._asked)
            self.loop.turn()
        self._state.read(self._told)
        return self.state

    def ahead(self, way):
        """The arm's position, moved along x."""
        return self.arm.m.position + np.array([way, 0.0, 0.0])

    @property
    def fault(self):
        return read_text(self.state.fault)


def test_it_starts_without_a_torque():
    bench = Bench()
    assert np.abs(bench.run(300).tau).max() < 1e-9


@pytest.mark.parametrize("loses", [0, 2, 3, 7])
def test_torques_step_against_what_the_arm_holds(loses):
    """Also where torques get lost: an arm that judges by what it holds then sees no jump."""
    quick = ControlConfig(stiffness=(3000.0,) * 3 + (50.0,) * 3, max_linear_speed=3.0, filter_s=0.0)
    bench = Bench(quick, loses=loses)
    bench.follow(bench.ahead(0.3), bench.arm.m.quaternion)
    bench.run(90)
    bench.follow(bench.ahead(-0.3), bench.arm.m.quaternion)
    bench.run(90)
    assert 0.99 < max(bench.arm.steps) <= 1.0 + 1e-9
    assert not bench.fault


@pytest.mark.parametrize("field", ["q", "dq", "position", "tau_echoed", "jacobian", "mass"])
def test_a_measurement_that_is_not_finite_ends_the_motion(field):
    bench = Bench()
    bench.run(10)
    getattr(bench.arm.m, field).flat[2] = np.nan
    tau = bench.run(1).tau
    assert np.isfinite(tau).all()
    assert bench.fault == "invalid_state"
    getattr(bench.arm.m, field).flat[2] = 0.0
    for _ in range(600):
        if bench.loop.phase is Phase.STOPPED:
            break
        bench.run(1)
    assert bench.loop.phase is Phase.STOPPED
    assert bench.arm.finished == 1
    assert bench.fault == "invalid_state"


def test_a_setpoint_goes_stale_to_the_tick():
    bench = Bench()
    bench.follow(bench.arm.m.position, bench.arm.m.quaternion)
    bench.run(500)
    assert not bench.fault
    bench.run(2)
    assert bench.fault == "stale_setpoint"


def test_a_held_arm_needs_no_setpoints_and_a_held_target_is_within_the_clip():
    bench = Bench()
    bench.follow(bench.ahead(0.3), bench.arm.m.quaternion)
    bench.run(95)
    bench.follow(bench.ahead(0.3), bench.arm.m.quaternion)
    before = bench.run(60).tau.copy()
    bench.command.following[0] = 0
    after = bench.run(1).tau.copy()
    assert np.abs(after - before).max() < 1e-6, "no jump"
    state = bench.run(1000)
    assert not bench.fault
    assert np.linalg.norm(state.target_position - state.position) <= 0.05 + 1e-6


def test_only_a_recovery_goes_on_after_a_reflex():
    bench = Bench()
    bench.run(10)
    bench.arm.reflex = "cartesian_reflex"
    bench.run(3)
    assert bench.fault == "cartesian_reflex"
    bench.follow(bench.ahead(0.1), bench.arm.m.quaternion)
    bench.run(3)
    assert bench.loop.phase is Phase.STOPPED
    assert bench.arm.motions == 1
    bench.command.following[0] = 0
    bench.command.recover[0] += 1
    bench.run(20)
    assert not bench.fault
    assert bench.arm.recoveries == 1
    assert bench.arm.motions == 2
    assert np.abs(bench.run(50).tau).max() < 1e-9, "the setpoint of before the recovery is forgotten"


def ask(bench, stiffness, ratio=1.0):
    bench.command.stiffness[:] = [stiffness] * 3 + [50.0] * 3
    bench.command.damping_ratio[0] = ratio
    bench.command.clip_lower[:], bench.command.clip_upper[:] = -0.05, 0.05
    bench.command.gains[0] += 1
    return Gains(int(bench.run(1).gains_refused[0]))


def test_gains_that_the_tank_cannot_pay_for_are_refused():
    bench = Bench(ControlConfig(tank_max=1.0, tank_min=0.1))
    bench.follow(bench.ahead(0.05), bench.arm.m.quaternion)
    bench.run(95)
    bench.command.following[0] = 0
    # 0.5 K e^2 is 0.6 J at 500 N/m, 0.9 J are there
    assert ask(bench, 700.0) is Gains.TAKEN
    assert bench.state.stiffness[0] == 700.0
    assert ask(bench, 2000.0) is Gains.TOO_DEAR
    assert bench.state.stiffness[0] == 700.0
    assert ask(bench, 300.0) is Gains.TAKEN
    assert not bench.fault


def test_gains_are_billed_once():
    """Here, or by the tick, but not by both, and neither takes anything out of the tank: the spring's energy is part of
    what that holds. So of 0.9 J a spring of 0.8 J leaves 0.1 J for the target's next move, not more and not less."""
    bench = Bench(ControlConfig(tank_max=1.0, tank_min=0.1))

    def spring_j():
        e = float(bench.state.target_position[0] - bench.state.position[0])
        return bench.state.stiffness[0] * min(e, 0.05) * (e - 0.5 * min(e, 0.05))

    bench.follow(bench.ahead(0.05), bench.arm.m.quaternion)
    bench.run(95)
    bench.follow(bench.ahead(0.05), bench.arm.m.quaternion)
    bench.run(95)
    bench.follow(bench.ahead(0.05), bench.arm.m.quaternion)
    bench.run(95)
    assert ask(bench, 640.0) is Gains.TAKEN
    assert spring_j() == pytest.approx(0.8, abs=0.01)
    bench.follow(bench.ahead(0.2), bench.arm.m.quaternion)
    assert bench.run(95).tank_fraction[0] == 1.0
    assert spring_j() == pytest.approx(0.9, abs=0.002)
    assert ask(bench, 700.0) is Gains.TOO_DEAR


@pytest.mark.parametrize(("stiffness", "ratio"), [(1e6, 1.0), (500.0, 50.0), (np.nan, 1.0), (500.0, np.nan)])
def test_gains_above_the_stability_bound_are_refused_and_the_arm_undisturbed(stiffness, ratio):
    bench = Bench()
    bench.follow(bench.ahead(0.02), bench.arm.m.quaternion)
    before = bench.run(95).tau.copy()
    assert ask(bench, stiffness, ratio) is Gains.UNSTABLE
    assert bench.state.stiffness[0] == 500.0
    assert np.abs(bench.state.tau - before).max() < 0.1
    assert not bench.fault


def test_a_server_does_not_start_with_gains_above_the_stability_bound():
    with pytest.raises(InvalidControlConfig, match=r"control.stiffness .* above the bound of 0.5"):
        Bench(ControlConfig(stiffness=(1e6,) * 3 + (50.0,) * 3))
