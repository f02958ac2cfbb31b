"""`serl eval` and `serl report`: exit codes that a script can rely on, and files where they are said to be."""

from threading import Event

import pytest

from serl_suite.cli.evaluate import evaluate_and_report
from serl_suite.cli.main import main
from serl_suite.nodes.evaluation import read_result


@pytest.mark.parametrize(("pass_at", "code"), [(0.1, 0), (0.99, 1)])
def test_exit_code_tells_whether_the_mark_is_reached(make_run, capsys, pass_at, code):
    folder = make_run(pass_at=pass_at)
    assert main(["eval", str(folder.path), "--episodes", "8", "--no-video"]) == code
    printed = capsys.readouterr().out
    result = read_result(folder.evaluation)
    assert f"{result.successes} of 8 succeeded" in printed
    assert ("not passed" in printed) == (code == 1)
    assert (folder.path / "report.html").exists()
    assert not (folder.path / "evaluation.mp4").exists()


def test_an_environment_that_tells_no_success_passes(make_run, capsys):
    assert main(["eval", str(make_run("SilentToy-v0").path), "--episodes", "3"]) == 0
    assert "mean return" in capsys.readouterr().out


def test_number_and_seed_default_to_the_runs_own(make_run):
    folder = make_run()
    evaluate_and_report(folder, Event(), film=False)
    result = read_result(folder.evaluation)
    assert (len(result.episodes), result.seed) == (20, 3)


def test_a_stopped_evaluation_is_no_verdict(make_run, capsys):
    folder = make_run()
    stop = Event()
    stop.set()
    assert evaluate_and_report(folder, stop) == 130
    assert not folder.evaluation.exists()
    assert "serl eval" in capsys.readouterr().out


def test_a_damaged_policy_is_named(make_run, capsys):
    folder = make_run()
    folder.policy.write_bytes(folder.policy.read_bytes()[:100])
    assert main(["eval", str(folder.path)]) == 1
    assert "policy.safetensors" in capsys.readouterr().err


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main(["eval", str(tmp_path)]) == 1
    assert "is not a run folder" in capsys.readouterr().err


def test_report_is_written_again(make_run, capsys):
    folder = make_run()
    assert main(["report", str(folder.path)]) == 0
    page = folder.path / "report.html"
    assert str(page) in capsys.readouterr().out.replace("\n", "")
    assert page.stat().st_size > 10_000
    assert (folder.path / "curve.png").exists()
