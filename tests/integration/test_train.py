"""`serl train` as a process of its own, with the learner and actor processes that it starts."""

import itertools
import signal
import sys
from pathlib import Path

import msgspec

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "faults")]
from ground_truth import compare, read_log  # noqa: E402
from serl_command import SMALL, nodes_of, run, start, wait_until  # noqa: E402

from serl_suite.data.episodes import read_dataset  # noqa: E402
from serl_suite.nodes.evaluation import read_result  # noqa: E402
from serl_suite.nodes.learner import Outcome  # noqa: E402
from serl_suite.nodes.metrics import read_metrics  # noqa: E402
from serl_suite.nodes.run_folder import RunFolder  # noqa: E402


def outcome_of(folder):
    return msgspec.json.decode((folder / "outcome.json").read_bytes(), type=Outcome)


def test_a_run_of_our_own_task_leaves_everything_that_was_promised(tmp_path):
    folder = tmp_path / "reach"
    code, out, err = run(
        *["train", "FrankaReach-v0", "--run", folder, "--max-steps", 100, "--demo-episodes", 2, *SMALL],
        *["--evaluation.episodes", 1, "--evaluation.pass-at", 1.0],
    )
    result = read_result(folder / "evaluation.json")
    assert code == (0 if result.success_rate == 1.0 else 1), err
    assert f"{result.successes} of 1 succeeded" in out
    for name in ("curve.png", "evaluation.mp4", "evaluation.gif", "report.html"):
        assert (folder / name).stat().st_size > 1000, name
    reopened = RunFolder(folder)
    assert reopened.config.max_steps == 100
    assert (reopened.config.agent.utd, reopened.config.demo_episodes) == (1.0, 2)
    for node in ("learner", "actor"):
        assert read_metrics(folder / "metrics" / f"{node}.jsonl")
        assert list((folder / "metrics" / "tensorboard" / node).glob("events.*"))
        assert (folder / "logs" / f"{node}.log").exists()
    assert reopened.policy.exists()
    assert reopened.checkpoint.exists()
    assert len(read_dataset(folder / "demos")) == 2
    recorded = sum(episode.steps[-1].index for episode in read_dataset(folder / "episodes"))
    assert recorded >= 100
    assert outcome_of(folder).env_steps == 100
    assert nodes_of(folder) == []


def test_any_gymnasium_task_trains_and_exits_well_where_success_is_not_known(tmp_path):
    folder = tmp_path / "pendulum"
    code, out, err = run(
        *["train", "Pendulum-v1", "--demos", "none", "--run", folder, "--max-steps", 150, *SMALL],
        *["--evaluation.episodes", 2],
    )
    assert code == 0, err
    assert "mean return" in out
    assert outcome_of(folder).updates == 130
    assert (folder / "report.html").exists()


def test_a_finished_run_that_is_resumed_is_evaluated_again_and_not_trained(tmp_path):
    folder = tmp_path / "run"
    new = ["train", "point_env:Point-v0", "--demo-episodes", 3, "--max-steps", 60, "--run", folder, *SMALL]
    code, _, err = run(*new, "--evaluation.episodes", 3, "--evaluation.pass-at", 0.0)
    assert code == 0, err
    evaluation = (folder / "evaluation.json").read_bytes()
    kept = ("outcome.json", "logs/learner.log", "logs/actor.log", "checkpoints/policy.safetensors")
    before = [(folder / name).stat().st_mtime_ns for name in kept]
    for name in ("evaluation.json", "report.html"):
        (folder / name).unlink()
    code, out, err = run("train", "--resume", folder)
    assert code == 0, err
    assert "of 3 succeeded" in out
    assert [(folder / name).stat().st_mtime_ns for name in kept] == before
    assert (folder / "evaluation.json").read_bytes() == evaluation
    assert (folder / "report.html").exists()


def test_the_same_seed_gives_the_same_policy_bit_for_bit_and_the_exit_code_is_the_verdict(tmp_path):
    arguments = ["train", "point_env:Point-v0", "--max-steps", 120, "--demo-episodes", 3, *SMALL]
    arguments += ["--evaluation.episodes", 5, "--run"]
    with (
        start(*arguments, tmp_path / "a", "--evaluation.pass-at", 0.0) as first,
        start(*arguments, tmp_path / "b", "--evaluation.pass-at", 1.01) as second,
    ):
        codes = []
        for process in (first, second):
            process.communicate(timeout=120)
            codes.append(process.returncode)
    assert codes == [0, 1]
    policies = [(tmp_path / name / "checkpoints" / "policy.safetensors").read_bytes() for name in "ab"]
    assert policies[0] == policies[1]
    results = [read_result(tmp_path / name / "evaluation.json") for name in "ab"]
    assert results[0].episodes == results[1].episodes


def interrupt(process, folder):
    """Ctrl-C: returns how long the node processes lived on."""
    process.send_signal(signal.SIGINT)
    took = wait_until(lambda: not nodes_of(folder))
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    return took, out


def test_stopped_killed_and_resumed_at_any_moment_it_goes_on_and_loses_nothing(tmp_path):
    folder, log = tmp_path / "run", tmp_path / "truth.log"
    new = ["train", "counted_env:Counted-v0", "--demos", "none", "--run", folder, "--max-steps", 600, *SMALL]
    new += ["--evaluation.episodes", 2000, "--learner.checkpoint-every", 60]
    resume = ["train", "--resume", folder]
    environment = {"COUNTED_LOG": str(log)}
    lines = lambda: len(read_log(log))  # noqa: E731

    with start(*new, environment=environment) as process:
        wait_until(lambda: len(nodes_of(folder)) == 2)  # still starting
        took, out = interrupt(process, folder)
    assert took < 2.0
    assert f"serl train --resume {folder}" in out
    with start(*resume, environment=environment) as process:
        wait_until(lambda: lines() > 90)
        took, _ = interrupt(process, folder)
    assert took < 2.0
    reached = lines()
    assert read_dataset(folder / "episodes")
    with start(*resume, environment=environment) as process:
        wait_until(lambda: lines() > reached + 150)
        process.kill()
        assert wait_until(lambda: not nodes_of(folder)) < 2.0
    with start(*resume, environment=environment) as process:
        wait_until((folder / "outcome.json").exists)
        wait_until(lambda: not nodes_of(folder))
        trained = lines()
        wait_until(lambda: lines() > trained)  # the evaluation runs, in the process itself
        took, out = interrupt(process, folder)
    assert "serl eval" in out

    found = compare(folder, log, evaluated=True)
    assert (found.lost, found.duplicated) == (0, 0)
    assert 600 <= outcome_of(folder).env_steps < 620
    assert found.promised < 600 + 150  # the resumed ones went on, they did not begin anew
    records = read_metrics(folder / "metrics" / "actor.jsonl")
    steps = [record["env_steps"] for record in records]
    setbacks = [a - b for a, b in itertools.pairwise(steps) if b < a]
    assert sum(setbacks) <= 120  # what the learner's checkpoint did not know of yet
    assert run("eval", folder, "--episodes", 2, environment=environment)[0] == 0
