"""How many times faster than real time the twin runs FrankaPickCube-v0 on one thread, with the controller on.

Ours: 1 kHz physics, the robot's own control tick with all its safety stages at 1 kHz, whole env steps with their
observations. Baseline: the same scene at 500 Hz, stepped through MuJoCo's Python bindings with the impedance law in
numpy, as twins are commonly built. Both move the arm all the time and are measured in turns, so that they share the
machine's moods.
"""

import argparse
import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import mujoco
import numpy as np
import serl_envs
from _table import Row, print_table, write_json
from serl_envs.tasks.pick_cube import PickCube
from serl_envs.twins.franka import FrankaTwin

TASK = "FrankaPickCube-v0"
TARGET = 25.0
ROUNDS = 8
STEPS = 40
BASELINE_DT_S = 0.002
BASELINE_TICKS = 500


def ours(env: gymnasium.Env, seed: int) -> float:
    """Returns x real time of whole env steps over one demonstration and what follows it."""
    expert = env.unwrapped.make_expert(noise=0.2, seed=seed)
    env.reset(seed=seed)
    expert.reset()
    spent = 0.0
    for _ in range(STEPS):
        action = expert.act(None)
        start = time.perf_counter()
        env.step(action)
        spent += time.perf_counter() - start
    return STEPS * 0.1 / spent


class Baseline:
    """The scene through the Python bindings at 500 Hz, with the impedance law and its nullspace in numpy."""

    def __init__(self) -> None:
        twin = FrankaTwin(PickCube())
        twin.reset(np.array([0.5, 0.0, 0.17]), np.array([1.0, 0.0, 0.0, 0.0]), 0.08)
        self.model, self.data = twin.model, twin.data
        self.model.opt.timestep = BASELINE_DT_S
        # the gripper's servo as stiff as the longer step allows
        self.model.actuator_gainprm[7] *= 0.25
        self.model.actuator_biasprm[7] *= 0.25
        self.model.tendon_stiffness[:] *= 0.25
        self.site = self.model.site("tcp").id
        self.posture = self.data.qpos[:7].copy()
        self.centre = self.data.site_xpos[self.site].copy()
        self.quaternion = self._orientation()

    def _orientation(self) -> np.ndarray:
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, self.data.site_xmat[self.site])
        return quaternion

    def run(self) -> float:
        """Returns x real time over one second of circling."""
        start = time.perf_counter()
        for k in range(BASELINE_TICKS):
            angle = 2 * np.pi * k / BASELINE_TICKS
            self._control(self.centre + 0.03 * np.array([np.cos(angle), np.sin(angle), 0.0]))
            mujoco.mj_step(self.model, self.data)
        return BASELINE_TICKS * BASELINE_DT_S / (time.perf_counter() - start)

    def _control(self, target: np.ndarray) -> None:
        model, data = self.model, self.data
        full = np.zeros((6, model.nv))
        mujoco.mj_jacSite(model, data, full[:3], full[3:], self.site)
        jacobian = full[:, :7]
        turn, conjugate, difference = np.zeros(3), np.zeros(4), np.zeros(4)
        mujoco.mju_negQuat(conjugate, self._orientation())
        mujoco.mju_mulQuat(difference, self.quaternion, conjugate)
        mujoco.mju_quat2Vel(turn, difference, 1.0)
        error = np.concatenate([target - data.site_xpos[self.site], turn])
        stiffness = np.array([800.0] * 3 + [48.0] * 3)
        mass = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, data, mass)
        inertia = 1.0 / np.diag(jacobian @ np.linalg.solve(mass[:7, :7], jacobian.T))
        wrench = stiffness * np.clip(error, -0.05, 0.05)
        wrench -= 1.4 * np.sqrt(stiffness * inertia) * (jacobian @ data.qvel[:7])
        posture = 10.0 * (self.posture - data.qpos[:7]) - 6.3 * data.qvel[:7]
        nullspace = np.eye(7) - jacobian.T @ np.linalg.pinv(jacobian.T)
        data.ctrl[:7] = jacobian.T @ wrench + nullspace @ posture


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the rows here too")
    arguments = parser.parse_args()
    assert TASK in serl_envs.TASKS
    env, baseline = gymnasium.make(TASK), Baseline()
    ours(env, 0)  # compiles, or loads what is compiled
    speeds, baseline_speeds = [], []
    for seed in range(ROUNDS):
        speeds.append(ours(env, seed))
        baseline_speeds.append(baseline.run())
    speed, other = float(np.median(speeds)), float(np.median(baseline_speeds))
    claim = "PickCube env steps, 1 kHz, one thread"
    baseline_text = f"{other:.1f} x (500 Hz, Python loop)"
    rows = [
        Row(claim, f"{speed:.1f} x real time", baseline_text, f">= {TARGET:.0f} x", speed >= TARGET),
        Row("one tick, all in", f"{1e3 / speed:.1f} us", f"{2e3 / other:.1f} us", "", None),
    ]
    passed = print_table(f"Twin, {TASK}", rows)
    write_json(arguments.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
