"""Making an environment by its Gymnasium id, and the little that nodes need to know of it."""

import contextlib
import difflib
import importlib.metadata
import logging
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import gymnasium
import gymnasium.envs.registration as gymnasium_registration
import numpy as np
import numpy.typing as npt

from serl_suite.data.actions import ActionScale
from serl_suite.errors import SerlError
from serl_suite.nodes.config import SIDES, TrainConfig
from serl_suite.nodes.frame_stack import FrameStack
from serl_suite.rewards.pictures import PictureWatch
from serl_suite.rewards.reward import make_reward
from serl_suite.rig import Rig
from serl_suite.wire.messages import Observation
from serl_suite.wire.spaces import EnvSpec, env_spec

__all__ = ["Environment", "EnvironmentFailure", "Expert", "load_plugins"]


log = logging.getLogger(__name__)


class EnvironmentFailure(SerlError):
    """The environment cannot be made, or broke its contract."""


class Expert(Protocol):
    """A scripted demonstrator, made by an environment's `make_expert(noise, seed)`."""

    def reset(self) -> None: ...

    def act(self, observation: Observation) -> npt.NDArray[np.float32]: ...


class Environment:
    """A Gymnasium environment as the nodes see it: dict observations of checked arrays.

    Args:
        task: Gymnasium id.
        obs: "pixels" is passed as `obs=`: pictures in the place of what only a simulation knows.
        cameras: Names of cameras to observe; passed as `cameras=` when there are any.
        image_size: Side of their pictures; passed as `image_size=` where there are any.
        frame_stack: Pictures of each camera to observe together; see `FrameStack`.
        rig: What to run on; passed as `rig=` when there is one.
        render_mode: Passed through.
        reward: Who judges success, as `make_reward` names it; `task`: the environment itself.
        disagreements: Where a classifier's errors are kept.

    Raises:
        EnvironmentFailure: Unknown id, missing dependency, refused argument, or pictures too small or large.
        BadClassifier: No such reward, or one for other cameras.
        NoTerminal: There is nobody to press a key.
        UnsupportedSpace: The spaces are not Box or Dict of Box (observations) and Box (actions).
    """

    def __init__(
        self,
        task: str,
        *,
        obs: Literal["state", "pixels"] = "state",
        cameras: tuple[str, ...] = (),
        image_size: int | None = None,
        frame_stack: int = 1,
        rig: Rig | None = None,
        render_mode: str | None = None,
        reward: str = "task",
        disagreements: Path | None = None,
    ) -> None:
        if image_size is not None and not SIDES[0] <= image_size <= SIDES[1]:
            raise EnvironmentFailure(
                f"pictures of {image_size} x {image_size} pixels; give a side of {SIDES[0]} to {SIDES[1]}"
            )
        arguments: dict[str, Any] = {"obs": obs} if obs == "pixels" else {}
        if cameras:
            arguments["cameras"] = cameras
        if arguments and image_size is not None:
            arguments["image_size"] = image_size
        if rig is not None:
            arguments["rig"] = rig
        self.env = _make(task, render_mode, arguments)
        with contextlib.ExitStack() as undone:
            undone.callback(self.env.close)
            own = env_spec(task, self.env)
            self._stack, self._watch = FrameStack(own, frame_stack), PictureWatch(own.image_keys, own)
            self.spec: EnvSpec = self._stack.spec
            self._judge = None if reward == "task" else make_reward(reward, self.spec, disagreements)
            undone.pop_all()
        self.scale = ActionScale(self.spec.action)
        """From the agent's [-1, 1] to the action space and back."""
        self.truth: bool | None = None
        """Whether the environment itself sees a success in the newest observation; None: it does not tell."""
        self.is_stale = False
        """Whether a camera has failed: the newest observation ends the episode, and is not to be learned from."""
        self._steps = 0

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        *,
        rig: Rig | None = None,
        render_mode: str | None = None,
        disagreements: Path | None = None,
    ) -> Self:
        """As a run is configured; on another rig than the run's, where one is given."""
        return cls(
            config.task,
            obs=config.obs,
            cameras=config.actor.cameras,
            image_size=config.actor.image_size,
            frame_stack=config.actor.frame_stack,
            rig=rig or config.rig,
            render_mode=render_mode,
            reward=config.reward,
            disagreements=disagreements,
        )

    def reset(self, seed: int | None = None) -> Observation:
        """Starts an episode and returns its first observation."""
        observation, info = self.env.reset(seed=seed)
        wrapped, self._steps, self.is_stale = self._stack.reset(observation), 0, False
        if self._judge is not None:
            self._watch.reset()
            self._check_pictures(wrapped, info)
            self._judge.reset()
            self._judge.judge(wrapped)
        return wrapped

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, bool | None]:
        """Takes one step.

        Args:
            action: In the action space's own units and bounds (`scale.to_env`). Shape: (action_dim,).

        Returns:
            Observation, reward, terminated, truncated, and success where the environment, or who judges in its place,
            tells it.

        Raises:
            EnvironmentFailure: The action is not finite; nothing has moved.
            BadPicture: Who judges in the environment's place is shown black, or the same picture for too long.
        """
        if not np.isfinite(action).all():
            raise EnvironmentFailure(
                f"the action is {action.tolist()}; nothing was moved. The policy has diverged: resume an earlier run"
            )
        shaped = action.reshape(self.env.action_space.shape)
        observation, reward, terminated, truncated, info = self.env.step(shaped)
        self.truth = _flag(info.get("is_success", info.get("success")))
        wrapped, self._steps = self._stack.add(observation), self._steps + 1
        self.is_stale = bool(info.get("stale", False))
        if self.is_stale:
            return wrapped, 0.0, False, True, None
        if self._judge is None:
            return wrapped, float(reward), bool(terminated), bool(truncated), self.truth
        self._check_pictures(wrapped, info)
        verdict = self._judge.judge(wrapped, self.truth)
        # What only a simulation knows must not end an episode; a fall or a stop does.
        over = verdict.success or verdict.failure or bool(terminated and not self.truth)
        limit = getattr(self.env.unwrapped, "max_steps", None)
        late = bool(truncated) or (limit is not None and self._steps >= limit)
        return wrapped, float(verdict.success), over, late and not over, verdict.success

    def _check_pictures(self, observation: Observation, info: dict[str, Any]) -> None:
        """Unless the environment itself tells pictures that are stale: whoever draws them or hears from the cameras
        knows better."""
        if "stale" not in info:
            self._watch.check(observation)

    def make_expert(self, noise: float, seed: int) -> Expert:
        """Returns the task's scripted expert.

        Raises:
            EnvironmentFailure: The environment has none.
        """
        make = getattr(self.env.unwrapped, "make_expert", None)
        if make is None:
            raise EnvironmentFailure(
                f"{self.spec.task} has no scripted expert; give demonstrations (--demos FILE) or --demos none"
            )
        expert: Expert = make(noise=noise, seed=seed)
        return expert

    @property
    def has_expert(self) -> bool:
        return hasattr(self.env.unwrapped, "make_expert")

    def render(self) -> npt.NDArray[np.uint8]:
        """Returns the current picture. Shape: (height, width, 3)."""
        return np.asarray(self.env.render(), np.uint8)

    def close(self) -> None:
        try:
            if self._judge is not None:
                self._judge.close()
        finally:
            self.env.close()


def _flag(success: object) -> bool | None:
    return None if success is None else bool(success)


def load_plugins() -> None:
    """Registers the tasks of every installed package that has a `gymnasium.envs` entry point, ours among them.

    Gymnasium 1.x no longer does this on import.
    """
    for entry in importlib.metadata.entry_points(group="gymnasium.envs"):
        try:
            register = entry.load()
        except ImportError as error:
            log.warning("the tasks of %s cannot be loaded: %s", entry.value, error)
            continue
        with (
            contextlib.nullcontext()
            if entry.name == "__root__"
            else gymnasium_registration.namespace(entry.name)
        ):
            register()


def _make(task: str, render_mode: str | None, arguments: dict[str, Any]) -> gymnasium.Env:
    load_plugins()
    try:
        return gymnasium.make(task, render_mode=render_mode, **arguments)
    except gymnasium.error.DependencyNotInstalled as error:
        raise EnvironmentFailure(f"{task} needs a package that is not installed: {error}") from error
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        near = difflib.get_close_matches(task, gymnasium.registry, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "`serl tasks` lists ours"
        raise EnvironmentFailure(f"no task {task!r} ({error}); {hint}") from error
    except TypeError as error:
        names = ", ".join(arguments) or "no arguments"
        raise EnvironmentFailure(
            f"{task} cannot be made with {names}: it may have no cameras, or takes no rig; leave them out "
            f"({str(error).partition(' was raised')[0]})"
        ) from error
