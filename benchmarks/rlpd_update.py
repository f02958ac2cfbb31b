"""One RLPD update (critic, actor, temperature; LayerNorm on) beside Stable-Baselines3's SAC gradient step.

Same shapes, batch 256, two critics of 256 x 256, sampling included, one thread. The rounds of the candidates
alternate, so that whatever else the machine does meets all of them, and the best round counts. SAC runs once as it
comes and once on the host settings that our learner uses (`tune_host`), to which part of the difference is due.
"""

import argparse
import sys
import time
from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from _table import Row, print_table, write_json
from numpy.typing import NDArray
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger

from serl_suite.agents.policy import Policy
from serl_suite.agents.rlpd import RLPD
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.data.mixing import mixed_sample
from serl_suite.data.replay import Replay
from serl_suite.networks.host import tune_host
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import EnvSpec, env_spec

Array = NDArray[np.float32]
STATE_DIM, ACTION_DIM, BATCH = 36, 7, 256
STEPS, EPISODE = 4000, 50
TARGET = 0.75


class Noise(gymnasium.Env[Array, Array]):
    """Random observations: only the shapes matter."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (STATE_DIM,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[Array, dict[str, object]]:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, STATE_DIM).astype(np.float32), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, object]]:
        return self.np_random.uniform(-1, 1, STATE_DIM).astype(np.float32), 0.0, False, False, {}


def make_sac() -> SAC:
    """SAC with its replay filled and nothing learned."""
    model = SAC(
        "MlpPolicy",
        Noise(),
        batch_size=BATCH,
        buffer_size=STEPS,
        learning_starts=STEPS,
        policy_kwargs={"net_arch": [256, 256]},
        device="cpu",
        seed=0,
    )
    model.learn(STEPS)
    model.set_logger(Logger(None, []))
    return model


def make_replay(spec: EnvSpec, steps: int, seed: int) -> Replay:
    """Random episodes."""
    rng, replay = np.random.default_rng(seed), Replay(spec, 2 * steps, seed=seed)
    for seq in range(steps):
        index = seq % (EPISODE + 1)
        action = rng.uniform(-1, 1, ACTION_DIM).astype(np.float32) if index else None
        observation = {"state": rng.uniform(-1, 1, STATE_DIM).astype(np.float32)}
        ended = index == EPISODE
        step = Step(seq=seq, episode=seq // (EPISODE + 1), index=index, observation=observation, action=action,
                    reward=float(ended), terminated=ended)  # fmt: skip
        replay.insert("a", step)
    return replay


def milliseconds(work: Callable[[], object], count: int) -> float:
    """Mean of a few calls."""
    start = time.perf_counter()
    for _ in range(count):
        work()
    return 1e3 * (time.perf_counter() - start) / count


def measure(rounds: int) -> dict[str, float]:
    """Best round of each candidate [ms]: what else the machine does can only add to it."""
    torch.set_num_threads(1)
    spec = env_spec("Noise", Noise())
    online, demos = make_replay(spec, STEPS, 0), make_replay(spec, 1000, 1)
    sac = make_sac()
    times: dict[str, list[float]] = {}
    full = RLPD(RLPDConfig(actor_period=1), spec, seed=0)
    learner = RLPD(RLPDConfig(), spec, seed=0)
    policy, observation = Policy(RLPDConfig(), spec, seed=0), {"state": np.zeros(STATE_DIM, np.float32)}
    tune_host()
    tuned = torch.get_float32_matmul_precision()
    candidates = {
        "sac": ("highest", lambda: sac.train(1, BATCH), 10),
        "sac tuned": (tuned, lambda: sac.train(1, BATCH), 10),
        "full": (tuned, lambda: full.update(mixed_sample(online, demos, BATCH, 0.5)), 10),
        "learner": (tuned, lambda: learner.update(mixed_sample(online, demos, BATCH, 0.5)), 16),
        "act": ("highest", lambda: policy.act(observation, explore=True), 100),
    }
    for round_ in range(rounds + 2):
        for name, (precision, work, count) in candidates.items():
            torch.set_float32_matmul_precision(precision)
            took = milliseconds(work, count)
            if round_ >= 2:  # the first rounds compile and warm up
                times.setdefault(name, []).append(took)
    return {name: min(values) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25, help="of about ten updates of each candidate")
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()
    ms = measure(args.rounds)
    ratio, period = ms["full"] / ms["sac"], RLPDConfig().actor_period
    rows = [
        Row("critic + actor + temperature", f"{ms['full']:.2f} ms", f"SB3 SAC {ms['sac']:.2f} ms", "", None),
        Row("  of SB3 SAC's time", f"{ratio:.2f} x", "1.00 x", f"<= {TARGET} x", ratio <= TARGET),
        Row("  of SB3 SAC's time on our host settings", f"{ms['full'] / ms['sac tuned']:.2f} x",
            f"SB3 SAC {ms['sac tuned']:.2f} ms", "", None),
        Row(f"critic updates/s, actor every {period}", f"{1e3 / ms['learner']:.0f} /s",
            f"SB3 SAC {1e3 / ms['sac']:.0f} /s", "", None),
        Row("policy, one observation", f"{1e3 * ms['act']:.0f} us", "", "<= 150 us", ms["act"] <= 0.15),
    ]  # fmt: skip
    passed = print_table(f"RLPD update, batch {BATCH}, 2 critics, state {STATE_DIM}, one thread", rows)
    write_json(args.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
