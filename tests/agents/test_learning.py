"""The whole learning core learns: a point mass, a sparse reward, ten poor demonstrations."""

import numpy as np

from serl_suite.agents.rlpd import RLPD
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.data.mixing import mixed_sample
from serl_suite.data.replay import Replay
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SPEC = EnvSpec(
    task="point",
    observation={
        "position": ArraySpec(shape=(2,), dtype="float32"),
        "velocity": ArraySpec(shape=(2,), dtype="float32"),
    },
    action=ArraySpec(shape=(2,), dtype="float32", low=-1.0, high=1.0),
)
LIMIT, RADIUS, BRAKE = 40, 0.1, 0.8


class Point:
    """Accelerate a damped point from a random place into a small disc at the origin; reward 1 there, once."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def reset(self):
        self.steps, self.velocity = 0, np.zeros(2)
        self.position = self.rng.uniform(0.5, 1.0, 2) * self.rng.choice([-1, 1], 2)
        return self.observe()

    def observe(self):
        return {"position": self.position.astype(np.float32), "velocity": self.velocity.astype(np.float32)}

    def step(self, action):
        self.steps += 1
        self.velocity = BRAKE * self.velocity + 0.03 * action
        self.position = self.position + self.velocity
        return self.observe(), bool(np.linalg.norm(self.position) < RADIUS), self.steps == LIMIT


def demonstrator(rng):
    """Heads for the goal slowly and unsteadily."""
    return lambda seen: np.clip(-0.6 * seen["position"] + rng.normal(0, 0.5, 2), -1, 1).astype(np.float32)


def play(env, policy, session_id, replay, first_seq, episode, after_step=lambda: None):
    """One episode; returns (success, steps)."""
    seen = env.reset()
    replay.insert(session_id, Step(seq=first_seq, episode=episode, index=0, observation=seen))
    for index in range(1, LIMIT + 1):
        action = policy(seen)
        seen, success, late = env.step(action)
        step = Step(
            seq=first_seq + index, episode=episode, index=index, observation=seen, action=action,
            reward=float(success), terminated=success, truncated=late and not success,
        )  # fmt: skip
        replay.insert(session_id, step)
        after_step()
        if success or late:
            return success, index
    raise AssertionError("the time limit ends every episode")


def test_rlpd_learns_a_sparse_task_from_demonstrations_and_beats_them():
    config = RLPDConfig(
        hidden=(64, 64), batch_size=128, utd=4, actor_period=2, discount=0.95, initial_temperature=0.03
    )
    env, rng = Point(0), np.random.default_rng(0)
    demos, online = Replay(SPEC, 2000, seed=1), Replay(SPEC, 5000, seed=2)
    demo_lengths, number = [], 0
    while len(demo_lengths) < 10:
        success, length = play(env, demonstrator(rng), f"demo {number}", demos, 0, 0)
        number += 1
        if success:
            demo_lengths.append(length)
    agent = RLPD(config, SPEC, seed=0)
    agent.fit_normaliser(demos.states())

    def learn():
        for _ in range(4):
            agent.update(mixed_sample(online, demos, config.batch_size, config.demo_fraction))

    seq = episode = 0
    while seq < 2000:
        _, length = play(env, lambda seen: agent.act(seen, explore=True), "a", online, seq, episode, learn)
        seq, episode = seq + length + 1, episode + 1

    test, kept = Point(99), Replay(SPEC, 64, seed=0)
    outcomes = [
        play(test, lambda seen: agent.act(seen, explore=False), f"test {i}", kept, 0, 0) for i in range(50)
    ]
    successes, lengths = zip(*outcomes, strict=True)
    assert np.mean(successes) >= 0.95
    assert np.mean(lengths) <= 0.8 * np.mean(demo_lengths)
