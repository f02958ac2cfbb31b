"""`serl train`: one command from nothing to a judged policy."""

import os
from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext
from typing import TYPE_CHECKING

import msgspec

from serl_suite.cli.stopping import stop_on_signals
from serl_suite.cli.typed import as_typed

if TYPE_CHECKING:
    from threading import Event

    from serl_suite.nodes.environment import Environment
    from serl_suite.nodes.run_folder import RunFolder

__all__ = ["run"]

DESCRIPTION = """Teach a robot a task on this machine.

  serl train FrankaPickCube-v0
  serl train FrankaPickCube-v0 --rig hardware/rigs/twin.yaml
  serl train Pendulum-v1 --demos none --max-steps 8000

Records demonstrations with the task's scripted expert (or takes yours: --demos), runs a learner process and an
actor process that talk over ZMQ exactly as on two machines, ends when a deterministic evaluation passes or the
step budget is spent, evaluates 100 fresh episodes and leaves a run folder: configuration, metrics, checkpoints,
episodes, learning curve, video and report.html. Exit code 0 only when that last evaluation passes.

Ctrl-C at any moment ends both processes within two seconds and keeps the data."""


def run(arguments: Sequence[str]) -> int:
    """Trains, evaluates and reports; 0 passed, 1 not, 130 interrupted."""
    stop = stop_on_signals()
    from serl_suite.cli.runs import discard_on_error, open_run

    folder, is_new = open_run(arguments, prog="serl train", description=DESCRIPTION)
    from serl_suite.cli.live_view import LiveView
    from serl_suite.nodes.supervisor import Supervisor
    from serl_suite.rewards.keys import terminal_given_back

    with discard_on_error(folder) if is_new else nullcontext():
        _prepare_demonstrations(folder, stop)
    if not stop.is_set() and not folder.outcome.exists():
        with LiveView(folder, stop) as view, terminal_given_back():
            Supervisor(folder, actors=folder.config.actors).train(stop, view.update)
    if not stop.is_set():
        from serl_suite.cli.evaluate import evaluate_and_report

        return evaluate_and_report(folder, stop)
    from serl_suite.cli.main import EXIT_INTERRUPTED

    resume = as_typed(f"serl train --resume {folder.path}")
    kept = "everything is kept" if _has_begun(folder) else "demonstrations are recorded anew, all of them"
    print(f"Stopped; {kept}. Go on with: {resume}")  # noqa: T201
    return EXIT_INTERRUPTED


def _has_begun(folder: "RunFolder") -> bool:
    """Whether there is anything yet that another start takes up."""
    return folder.has_demonstrations or any(folder.logs.iterdir())


def _prepare_demonstrations(folder: "RunFolder", stop: "Event") -> None:
    """Imports or records what the configuration asks for, unless an earlier start of this run did.

    The environment is made in any case, and of pictures the policy: what is wrong with them, with who judges or with
    a backbone's weights shows here, before minutes have gone or a process starts.
    """
    from serl_suite.data.journal import lock_run
    from serl_suite.nodes.demonstrations import import_demonstrations
    from serl_suite.nodes.environment import Environment
    from serl_suite.rewards.reward import make_reward

    config = folder.config
    is_by_key = config.reward.partition(":")[0] == "key"
    if is_by_key:  # nobody is there to press one for a script
        config = msgspec.structs.replace(config, reward="task")
    with ExitStack() as undone:
        undone.callback(os.close, lock_run(folder.path / "demos.lock", folder.path))
        environment = undone.enter_context(closing(Environment.of(config)))
        folder.hold_files()
        if is_by_key:
            make_reward(folder.config.reward, environment.spec).close()  # there is a terminal
        if environment.spec.image_keys:
            from serl_suite.agents.registry import describe, make_policy  # torch

            make_policy(describe("rlpd", config.agent), environment.spec, seed=config.seed)
        if config.demos == "none" or folder.has_demonstrations:
            return
        if config.demos is not None:
            import_demonstrations(config.demos, folder.demos, environment.spec)
        elif environment.has_expert:
            _record(folder, environment, stop)


def _record(folder: "RunFolder", environment: "Environment", stop: "Event") -> None:
    """Records into a folder of another name, so that a Ctrl-C leaves all demonstrations or none."""
    from serl_suite.cli.demo_record import record_with_progress
    from serl_suite.nodes.demonstrations import fresh_recording

    config, recording = folder.config, fresh_recording(folder.demos)
    finished = record_with_progress(
        environment,
        recording,
        episodes=config.demo_episodes,
        noise=config.demo_noise,
        seed=config.seed,
        stop=stop,
    )
    if finished:
        recording.rename(folder.demos)  # in the place of the empty one
