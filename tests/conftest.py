"""A toy task that needs no robot, and run folders made by the real writers."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict

from serl_suite.agents.registry import make_agent
from serl_suite.data.checkpoint import save_checkpoint
from serl_suite.nodes.config import ActorConfig, EvaluationConfig, TrainConfig
from serl_suite.nodes.demonstrations import record_scripted
from serl_suite.nodes.environment import Environment
from serl_suite.nodes.metrics import MetricsWriter
from serl_suite.nodes.run_folder import RunFolder

MAX_STEPS = 12


class Toy(gymnasium.Env):
    """A point on a line that must come within 0.5 of the origin, from at most 1; doing nothing solves about half."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    tells_success = True

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.observation_space = Dict({"x": Box(-2.0, 2.0, (1,), np.float32)})
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x, self._steps = self.np_random.uniform(-1.0, 1.0), 0
        return self._observation(), {}

    def step(self, action):
        self._x = float(np.clip(self._x + 0.1 * action[0], -2.0, 2.0))
        self._steps += 1
        success = self._steps > 2 and abs(self._x) < 0.5
        truncated = not success and self._steps >= MAX_STEPS
        return (
            self._observation(),
            float(success),
            success,
            truncated,
            {"is_success": success} if self.tells_success else {},
        )

    def render(self):
        picture = np.full((65, 97, 3), 235, np.uint8)
        column = int(np.clip(48 + 24 * self._x, 4, 92))
        picture[28:36, column - 4 : column + 4] = (217, 80, 28)
        return picture

    def make_expert(self, noise, seed):
        return _ToyExpert(noise, np.random.default_rng(seed))

    def _observation(self):
        return {"x": np.array([self._x], np.float32)}


class SilentToy(Toy):
    """Tells no success and renders nothing."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012
    tells_success = False


class _ToyExpert:
    def __init__(self, noise, rng):
        self._noise, self._rng = noise, rng

    def reset(self):
        pass

    def act(self, observation):
        towards = -np.sign(observation["x"]) * 0.4
        return np.clip(towards + self._noise * self._rng.normal(size=1), -1, 1).astype(np.float32)


@pytest.fixture(scope="session")
def toy_tasks():
    """Registers `Toy-v0`, and `SilentToy-v0` that tells no success and renders nothing."""
    gymnasium.register("Toy-v0", entry_point=Toy)
    gymnasium.register("SilentToy-v0", entry_point=SilentToy)
    yield
    del gymnasium.registry["Toy-v0"], gymnasium.registry["SilentToy-v0"]


@pytest.fixture
def make_run(toy_tasks, tmp_path):
    """Makes run folders as training leaves them: `make_run(task, trained=..., demos=...)`."""

    def make(task="Toy-v0", *, trained=True, demos=3, pass_at=0.95, name="run"):
        config = TrainConfig(
            task=task,
            seed=3,
            max_steps=1500,
            actor=ActorConfig(block_steps=5),
            evaluation=EvaluationConfig(pass_at=pass_at, episodes=20),
        )
        folder = RunFolder.create(tmp_path / name, config)
        environment = Environment(task)
        if demos and task == "Toy-v0":
            list(record_scripted(environment, folder.demos, episodes=demos, noise=0.1, seed=0))
        if trained:
            write_metrics(folder, knows_success=task == "Toy-v0")
            agent = make_agent("rlpd", config.agent, environment.spec, seed=0)
            tensors = {key: torch.from_numpy(value) for key, value in agent.policy_state().items()}
            save_checkpoint(folder.policy, tensors, {"version": 17})
        environment.close()
        return folder

    return make


def write_metrics(folder, *, knows_success=True, steps=1200):
    """Metrics of a training that gets better: the keys are those of learner and actor."""
    rng = np.random.default_rng(0)
    with MetricsWriter(folder.metrics, "learner") as learner, MetricsWriter(folder.metrics, "actor") as actor:
        for env_steps in range(20, steps + 1, 20):
            share = env_steps / steps
            learner.write(
                env_steps,
                {
                    "critic/loss": 0.05 * (1.1 - share) * rng.uniform(0.7, 1.3),
                    "critic/q": 0.9 * share,
                    "actor/temperature": 0.1 * 0.2**share,
                    "learner/training_s": env_steps / 20,
                    "learner/updates": 8 * env_steps,
                    "learner/updates_per_s": 160.0,
                    "learner/steps_per_s": 20.0,
                    "learner/realised_utd": 8.0,
                    "learner/updates_owed": 12.0,
                    "learner/policy_version": env_steps // 10,
                },
            )
            success = bool(rng.uniform() < share) if knows_success else None
            actor.write(
                env_steps,
                {
                    "episode/number": env_steps // 20,
                    "episode/success": success,
                    "episode/return": float(bool(success)) if knows_success else -100 + 90 * share,
                    "episode/length": 20,
                    "episode/success_rate": share if knows_success else None,
                    "actor/steps_per_s": 20.0,
                    "actor/robot_time_s": env_steps / 10,
                    "actor/policy_version": env_steps // 10,
                    "actor/policy_staleness": 1,
                    "actor/unacknowledged": 3,
                },
            )
        if knows_success:
            actor.write(
                steps, {"evaluation/success_rate": 0.9, "evaluation/return": 0.9, "evaluation/length": 18.0}
            )
