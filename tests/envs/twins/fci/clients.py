"""Unmodified clients of the arm, each run in a process of its own: `python clients.py NAME ADDRESS [ARGUMENT ...]`.

pylibfranka never lets go of the GIL, and as root makes its thread the most urgent of the machine: it must not share a
process with a twin, nor run unbounded. Each prints one JSON object.
"""

import json
import math
import sys
import time

import numpy as np
import pylibfranka as franka

STEP = 0.99
"""[N m]: just within what the arm accepts from one millisecond to the next."""


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def connect(address):
    return franka.Robot(address, franka.RealtimeConfig.kIgnore)


def saturated(tau, state):
    echoed = np.array(state.tau_J_d)
    return echoed + np.clip(tau - echoed, -STEP, STEP)


def torques(tau, finished=False):
    command = franka.Torques(np.asarray(tau, float).tolist())
    command.motion_finished = finished
    return command


def attempt(act):
    """The exception that `act` ends with, as (type, message); its traceback, which holds the motion, is gone then."""
    try:
        act()
    except Exception as error:  # noqa: BLE001 - the client's exceptions have no common base
        return type(error).__name__, str(error)
    return None, ""


def outcome(robot, act):
    """What the client is told when `act` ends badly, what the arm then says, and whether it recovers."""
    kind, message = attempt(act)
    if kind is None:
        return {"exception": None}
    state = robot.read_once()
    mode, errors = state.robot_mode.name, str(state.current_errors)
    robot.automatic_error_recovery()
    after = robot.read_once()
    return {
        "exception": kind,
        "message": message,
        "mode": mode,
        "errors": errors,
        "last_errors": str(state.last_motion_errors),
        "mode_after_recovery": after.robot_mode.name,
        "errors_after_recovery": str(after.current_errors),
        "moves_again": swings(robot, 200)["ticks"],
    }


def swings(robot, ticks):
    """Joint-space swings by torque, all joints, 0.1 rad."""
    control = robot.start_torque_control()
    irregular, start, rates = 0, None, []
    began = time.monotonic()
    for i in range(ticks):
        state, period = control.readOnce()
        irregular += i > 0 and abs(period.to_sec() - 1e-3) > 1e-9
        q, dq = np.array(state.q), np.array(state.dq)
        start = q if start is None else start
        tau = -30 * (q - start - 0.1 * math.sin(2e-3 * i)) - 4 * dq
        control.writeOnce(torques(saturated(tau, state), finished=i == ticks - 1))
        rates.append(state.control_command_success_rate)
    return {
        "ticks": ticks,
        "irregular": irregular,
        "success_rate": min(rates[1:], default=1.0),
        "mean_success_rate": float(np.mean(rates[1:])),
        "wall_s": time.monotonic() - began,
        "q": robot.read_once().q,
        "travelled": float(np.abs(np.array(state.q) - start).max()),
    }


def read(address):
    state = connect(address).read_once()
    return {"q": state.q, "mode": state.robot_mode.name, "O_T_EE": state.O_T_EE, "m_ee": state.m_ee}


def swing(address, ticks):
    return swings(connect(address), int(ticks))


def model(address, states_file, out_file):
    """The client's own dynamics over the states in a file: q, dq and the tool's inertia, in full precision."""
    robot = connect(address)
    state, dynamics = robot.read_once(), robot.load_model()
    given = np.load(states_file)
    state.m_total, state.O_ddP_O = float(given["mass"]), [0.0, 0.0, -9.81]
    state.F_x_Ctotal, state.I_total = given["com"].tolist(), given["inertia"].ravel().tolist()
    state.F_T_EE = given["tool"].T.ravel().tolist()
    state.EE_T_K = np.eye(4).ravel().tolist()
    out = {"M": [], "c": [], "g": [], "J": []}
    for q, dq in zip(given["q"], given["dq"], strict=True):
        state.q, state.dq = q.tolist(), dq.tolist()
        out["M"].append(np.array(dynamics.mass(state)).reshape(7, 7).T)
        out["c"].append(dynamics.coriolis(state))
        out["g"].append(dynamics.gravity(state))
        out["J"].append(np.array(dynamics.zero_jacobian(state)).reshape(7, 6).T)
    np.savez(out_file, **out)
    return {}


def torque_jump(address):
    robot = connect(address)

    def act():
        control = robot.start_torque_control()
        for i in range(100):
            control.readOnce()
            control.writeOnce(torques(np.full(7, 0.0 if i < 50 else 1.5)))

    return outcome(robot, act)


def spin(address, joint, torque, ticks):
    """A constant torque on one joint, damped on the others."""
    robot = connect(address)
    joint, wanted = int(joint), float(torque)
    robot.set_collision_behavior([1000.0] * 7, [1000.0] * 7, [1000.0] * 6, [1000.0] * 6)

    def act():
        control = robot.start_torque_control()
        for _ in range(int(ticks)):
            state, _ = control.readOnce()
            tau = -5 * np.array(state.dq)
            tau[joint] = wanted
            control.writeOnce(torques(saturated(tau, state)))

    return outcome(robot, act)


def turn_to_limit(address, joint):
    """A weak damped torque on one joint, until it is where it must not be."""
    robot, joint = connect(address), int(joint)

    def act():
        control = robot.start_torque_control()
        for _ in range(20_000):
            state, _ = control.readOnce()
            tau = -5 * np.array(state.dq)
            tau[joint] = 6.0 * (1.0 - state.dq[joint])
            control.writeOnce(torques(saturated(tau, state)))

    return outcome(robot, act)


def joint_start(address, off):
    """Begins elsewhere than the arm is."""
    robot = connect(address)

    def act():
        control = robot.start_joint_position_control(franka.ControllerMode.JointImpedance)
        for _ in range(100):
            state, _ = control.readOnce()
            control.writeOnce(franka.JointPositions((np.array(state.q_d) + float(off)).tolist()))

    return outcome(robot, act)


def press(address, axis_threshold, joint_threshold, speed):
    """Drives the hand down into the table by Cartesian velocity."""
    robot = connect(address)
    force, torque = [float(axis_threshold)] * 6, [float(joint_threshold)] * 7
    robot.set_collision_behavior(torque, torque, force, force)

    def act():
        control = robot.start_cartesian_velocity_control(franka.ControllerMode.JointImpedance)
        down = 0.0
        for _ in range(6000):
            control.readOnce()
            down = min(down + 1e-4, float(speed))
            control.writeOnce(franka.CartesianVelocities([0, 0, -down, 0, 0, 0]))

    return outcome(robot, act)


def find_stopped(address):
    """Comes to an arm that the motion of another client has stopped."""
    robot = connect(address)
    return outcome(robot, robot.start_torque_control)


def fall_silent(address, silence_s):
    """Goes on with a motion, says nothing for a while, and goes on."""
    robot = connect(address)

    def act():
        control = robot.start_torque_control()
        for i in range(200):
            state, _ = control.readOnce()
            control.writeOnce(torques(saturated(-5 * np.array(state.dq), state)))
            if i == 100:
                time.sleep(float(silence_s))

    return outcome(robot, act)


def joint_positions(address, ticks, jump, controller):
    """A smooth swing of all joints; at half of it `jump` rad are added at once."""
    robot, ticks, jump = connect(address), int(ticks), float(jump)
    ends = {}

    def act():
        control = robot.start_joint_position_control(getattr(franka.ControllerMode, controller))
        start, worst = None, 0.0
        for i in range(ticks):
            state, _ = control.readOnce()
            start = np.array(state.q_d) if start is None else start
            if i:
                worst = max(worst, float(np.abs(np.array(state.q) - np.array(state.q_d)).max()))
            q = start + 0.1 * (1 - math.cos(2 * math.pi * i / (ticks - 1))) / 2
            q = q + (jump if i >= ticks // 2 else 0.0)
            command = franka.JointPositions(q.tolist())
            command.motion_finished = i == ticks - 1
            control.writeOnce(command)
            if i == ticks // 2:
                ends["half_way"] = (np.array(state.q) - start).tolist()
        ends["tracking_error"] = worst
        ends["return_error"] = float(np.abs(np.array(robot.read_once().q) - start).max())

    return outcome(robot, act) | ends


def joint_velocities(address, peak, rise_ticks):
    robot, peak, rise = connect(address), float(peak), int(rise_ticks)
    ends = {}

    def act():
        control = robot.start_joint_velocity_control(franka.ControllerMode.JointImpedance)
        ticks, start = 6 * rise, None
        for i in range(ticks):
            state, _ = control.readOnce()
            start = np.array(state.q) if start is None else start
            share = math.sin(math.pi * i / (ticks - 1)) ** 2
            dq = np.zeros(7)
            dq[[0, 6]] = peak * share
            command = franka.JointVelocities(dq.tolist())
            command.motion_finished = i == ticks - 1
            control.writeOnce(command)
        ends["travelled"] = (np.array(robot.read_once().q) - start).tolist()
        ends["expected"] = peak * 0.5 * ticks * 1e-3

    return outcome(robot, act) | ends


def planned_positions(address, step):
    """A goal for the arm's own trajectory, and another one on the way there."""
    robot, step = connect(address), float(step)
    start = np.array(robot.read_once().q)
    handler = franka.AsyncPositionControlHandler
    configured = handler.configure(robot, handler.Configuration([0.5] * 7, 1e-3))
    if configured.handler is None:
        return {"error": configured.error_message}
    control, speeds = configured.handler, []
    for goal in (start + step, start - step):
        control.set_joint_position_target(handler.JointPositionTarget(goal.tolist()))
        for _ in range(4000):
            state = robot.read_once()
            speeds.append(float(np.abs(state.dq).max()))
            if np.abs(np.array(state.q) - start).max() > step / 2 and goal[0] > start[0]:
                break
            if np.abs(np.array(state.q) - goal).max() < 1e-3:
                break
    ended = (np.array(robot.read_once().q) - start).tolist()
    control.stop_control()
    return {
        "error": configured.error_message,
        "fastest": max(speeds),
        "ended": ended,
        "mode": robot.read_once().robot_mode.name,
        "again": swings(robot, 100)["ticks"],
    }


def cartesian_poses(address, amplitude, ticks, controller):
    """Sideways and back along the base's y, as the pose generator takes it."""
    robot, amplitude, ticks = connect(address), float(amplitude), int(ticks)
    ends = {}

    def act():
        control = robot.start_cartesian_pose_control(getattr(franka.ControllerMode, controller))
        start = None
        for i in range(ticks):
            state, _ = control.readOnce()
            start = np.array(state.O_T_EE_d) if start is None else start
            pose = start.copy()
            pose[13] += amplitude * (1 - math.cos(2 * math.pi * i / (ticks - 1))) / 2
            command = franka.CartesianPose(pose.tolist())
            command.motion_finished = i == ticks - 1
            control.writeOnce(command)
            if i == ticks // 2:
                ends["half_way"] = (np.array(state.O_T_EE) - start)[12:15].tolist()
        ends["return_error"] = float(np.abs(np.array(robot.read_once().O_T_EE) - start).max())

    return outcome(robot, act) | ends


def cartesian_velocities(address, peak, ticks):
    robot, peak, ticks = connect(address), float(peak), int(ticks)
    ends = {}

    def act():
        control = robot.start_cartesian_velocity_control(franka.ControllerMode.CartesianImpedance)
        start = None
        for i in range(ticks):
            state, _ = control.readOnce()
            start = np.array(state.O_T_EE) if start is None else start
            share = math.sin(math.pi * i / (ticks - 1)) ** 2
            command = franka.CartesianVelocities([0, 0, peak * share, 0, 0, 0])
            command.motion_finished = i == ticks - 1
            control.writeOnce(command)
        ends["travelled"] = (np.array(robot.read_once().O_T_EE) - start)[12:15].tolist()
        ends["expected"] = peak * 0.5 * ticks * 1e-3

    return outcome(robot, act) | ends


def stop_half_way(address):
    """Drops the control object in the middle of a motion, as a client does that changes its mind."""
    robot = connect(address)
    control = robot.start_torque_control()
    for _ in range(50):
        state, _ = control.readOnce()
        control.writeOnce(torques(saturated(np.zeros(7), state)))
    del control
    return {"mode": robot.read_once().robot_mode.name, "again": swings(robot, 100)["ticks"]}


def setters(address):
    """Every setting, right and wrong."""
    robot = connect(address)
    turned = np.eye(4)
    turned[:3, 3] = 0.01, 0.02, 0.05
    robot.set_EE(turned.T.ravel().tolist())
    robot.set_K(turned.T.ravel().tolist())
    robot.set_load(0.5, [0.0, 0.0, 0.1], [1e-3, 0, 0, 0, 1e-3, 0, 0, 0, 1e-3])
    robot.set_joint_impedance([1500.0] * 7)
    robot.set_cartesian_impedance([500.0] * 3 + [50.0] * 3)
    robot.set_collision_behavior([10.0] * 7, [12.0] * 7, [10.0] * 6, [12.0] * 6)
    for _ in range(200):  # the first states may have been under way before the settings were taken
        state = robot.read_once()
        if state.m_load:
            break
    wrong = {
        "set_joint_impedance": ([1e9] * 7,),
        "set_cartesian_impedance": ([-5.0] * 6,),
        "set_load": (-1.0, [0.0] * 3, [0.0] * 9),
    }
    refused = {
        name: attempt(lambda name=name, values=values: getattr(robot, name)(*values))[1]
        for name, values in wrong.items()
    }
    return {"NE_T_EE": state.NE_T_EE, "m_load": state.m_load, "m_total": state.m_total, "refused": refused}


def under_user_stop(address):
    """Moves until the user stop ends it, and tries again: told by "ready" on standard output."""
    robot = connect(address)
    told = {}

    def move():
        control = robot.start_torque_control()
        say("ready")
        until = time.monotonic() + 10
        while time.monotonic() < until:
            state, _ = control.readOnce()
            control.writeOnce(torques(saturated(np.zeros(7), state)))

    for name, act in (("moving", move), ("recovery", robot.automatic_error_recovery), ("again", move)):
        told[name] = attempt(act)[1]
    told["mode"] = robot.read_once().robot_mode.name
    return told


def hold_on(address):
    """Holds still by torque until something happens to it."""
    robot, began = connect(address), time.monotonic()

    def act():
        control = robot.start_torque_control()
        say("ready")
        until = time.monotonic() + 20
        while time.monotonic() < until:
            state, _ = control.readOnce()
            control.writeOnce(torques(saturated(np.zeros(7), state)))

    kind, message = attempt(act)
    return {"exception": kind, "message": message, "after_s": time.monotonic() - began}


def hand(address):
    gripper = franka.Gripper(address)
    first = gripper.read_once()
    homed = gripper.homing()
    opened = gripper.read_once()
    moved = gripper.move(0.03, 0.1)
    at = gripper.read_once()
    nothing_there = gripper.grasp(0.02, 0.1, 20.0, 0.005, 0.005)
    closed = gripper.read_once()
    stopped = gripper.stop()
    return {
        "version": gripper.server_version(),
        "first": first.width,
        "homed": homed,
        "open": opened.width,
        "max_width": opened.max_width,
        "moved": moved,
        "width": at.width,
        "grasped_nothing": nothing_there,
        "closed": closed.width,
        "is_grasped": closed.is_grasped,
        "stopped": stopped,
    }


def creep(address):
    """A hand that closes for eight seconds."""
    gripper = franka.Gripper(address)
    say("ready")
    kind, message = attempt(lambda: gripper.move(0.0, 0.01))
    return {"exception": kind, "message": message}


def regrasp(address, width):
    """Lets go of what the hand holds and takes it again, in place."""
    gripper = franka.Gripper(address)
    before = gripper.read_once().is_grasped
    opened = gripper.move(float(width) + 0.004, 0.02)
    loose = gripper.read_once().is_grasped
    grasped = gripper.grasp(float(width), 0.05, 40.0, 0.003, 0.003)
    after = gripper.read_once()
    return {
        "before": before,
        "opened": opened,
        "loose": loose,
        "grasped": grasped,
        "is_grasped": after.is_grasped,
        "width": after.width,
    }


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    say(json.dumps(globals()[name](*arguments)))
