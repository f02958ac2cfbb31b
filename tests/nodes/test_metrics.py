"""Metrics on disk: what is written comes back, whatever a kill left behind."""

from serl_suite.nodes.metrics import MetricsWriter, read_metrics


def test_records_come_back_as_numbers_without_what_is_absent(tmp_path):
    with MetricsWriter(tmp_path, "actor") as writer:
        writer.write(20, {"episode/success": True, "episode/return": 1.0})
        writer.write(40, {"episode/success": None, "episode/return": -3.5})
    records = read_metrics(tmp_path / "actor.jsonl")
    assert records == [
        {"env_steps": 20, "episode/success": 1.0, "episode/return": 1.0},
        {"env_steps": 40, "episode/return": -3.5},
    ]


def test_a_second_start_appends(tmp_path):
    for env_steps in (1, 2):
        with MetricsWriter(tmp_path, "learner") as writer:
            writer.write(env_steps, {"critic/loss": 0.5})
    assert [record["env_steps"] for record in read_metrics(tmp_path / "learner.jsonl")] == [1, 2]


def test_a_torn_last_line_is_passed_over(tmp_path):
    with MetricsWriter(tmp_path, "learner") as writer:
        writer.write(1, {"critic/loss": 0.5})
        writer.write(2, {"critic/loss": 0.4})
    path = tmp_path / "learner.jsonl"
    for size in range(path.stat().st_size, 0, -1):
        path.write_bytes(path.read_bytes()[:size])
        assert [record["env_steps"] for record in read_metrics(path)] in ([1, 2], [1], [])


def test_no_file_is_no_records(tmp_path):
    assert read_metrics(tmp_path / "learner.jsonl") == []


def test_tensorboard_gets_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsWriter(tmp_path, "learner") as writer:
        writer.write(7, {"critic/loss": 0.25, "learner/realised_utd": None})
    events = EventAccumulator(str(tmp_path / "tensorboard" / "learner")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("critic/loss")] == [(7, 0.25)]
    assert events.Tags()["scalars"] == ["critic/loss"]
