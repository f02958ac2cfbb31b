"""Renders the pictures of these pages from the twin itself: `make docs`."""

from pathlib import Path

import cv2
import gymnasium
import numpy as np
import serl_envs  # noqa: F401 - registers the tasks

TASKS = ("FrankaReach-v0", "FrankaPickCube-v0", "FrankaPegInsert-v0", "FrankaBayonetLock-v0")
MOMENTS = (3, 14, 16, 24)
"""Steps of the scripted expert after which each task shows what it is about."""
SIZE, GAP = 400, 8


def task_picture(task: str, steps: int) -> np.ndarray:
    """The view of a task after the expert's first steps. Shape: (SIZE, SIZE, 3), RGB."""
    env = gymnasium.make(task, render_mode="rgb_array")
    expert = env.unwrapped.make_expert(noise=0.0, seed=0)
    observation, _ = env.reset(seed=1)
    expert.reset()
    for _ in range(steps):
        observation, *_ = env.step(expert.act(observation))
    picture = env.render()
    env.close()
    return cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def main() -> None:
    """Writes images/tasks.png beside this file."""
    gap = np.full((SIZE, GAP, 3), 255, np.uint8)
    row: list[np.ndarray] = []
    for task, steps in zip(TASKS, MOMENTS, strict=True):
        row += [task_picture(task, steps), gap]
    cv2.imwrite(str(Path(__file__).parent / "images" / "tasks.png"), np.hstack(row[:-1])[:, :, ::-1])


if __name__ == "__main__":
    main()
