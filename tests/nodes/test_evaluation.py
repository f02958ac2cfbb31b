"""Evaluation: seeded, deterministic, stoppable; and the interval of a success rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serl_suite.agents.registry import describe, make_policy
from serl_suite.nodes.config import TrainConfig
from serl_suite.nodes.environment import Environment
from serl_suite.nodes.evaluate_run import CannotEvaluate, evaluate_run
from serl_suite.nodes.evaluation import evaluate, read_result, wilson_interval


@pytest.fixture
def environment(toy_tasks):
    environment = Environment("Toy-v0")
    yield environment
    environment.close()


def policy_for(environment, seed=0):
    return make_policy(describe("rlpd", TrainConfig(task="Toy-v0").agent), environment.spec, seed=seed)


def test_the_same_seed_gives_the_same_outcomes_and_another_seed_others(environment):
    policy = policy_for(environment)
    first = list(evaluate(environment, policy, episodes=20, seed=1))
    assert list(evaluate(environment, policy, episodes=20, seed=1)) == first
    assert list(evaluate(environment, policy, episodes=20, seed=2)) != first


def test_outcomes_are_those_of_the_environment(environment):
    outcomes = list(evaluate(environment, policy_for(environment), episodes=30, seed=0))
    assert {outcome.success for outcome in outcomes} == {True, False}
    for outcome in outcomes:
        assert outcome.episode_return == float(outcome.success)
        assert 3 <= outcome.length <= 12


def test_an_episode_in_which_a_camera_fails_begins_again(environment):
    policy = policy_for(environment)
    undisturbed = list(evaluate(environment, policy, episodes=6, seed=1))
    step, taken = environment.env.step, iter(range(1000))

    def failing(action):
        observation, reward, terminated, truncated, info = step(action)
        if next(taken) in (1, 9, 10):
            return observation, 0.0, False, True, {"fault": "camera_wrist_stalled", "stale": True}
        return observation, reward, terminated, truncated, info

    environment.env.step = failing
    assert list(evaluate(environment, policy, episodes=6, seed=1)) == undisturbed


def test_every_observation_is_seen_once(environment):
    seen = []
    outcomes = list(
        evaluate(
            environment,
            policy_for(environment),
            episodes=3,
            seed=0,
            on_observation=lambda number, observation: seen.append(number),
        )
    )
    assert [seen.count(number) for number in range(3)] == [outcome.length + 1 for outcome in outcomes]


def test_stops_between_two_steps(environment):
    calls = iter(range(1000))
    outcomes = evaluate(
        environment, policy_for(environment), episodes=50, seed=0, should_stop=lambda: next(calls) > 30
    )
    assert len(list(outcomes)) < 50


def test_wilson_interval_against_published_figures():
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (Wilson without continuity correction)
    for successes, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
    ):
        assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 2000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_interval_holds_the_rate_and_mirrors(case):
    successes, trials = case
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1.0
    assert wilson_interval(trials - successes, trials) == pytest.approx((1 - high, 1 - low))


def test_evaluating_a_run_writes_what_it_returns(make_run):
    folder = make_run()
    seen = []
    result = evaluate_run(folder, episodes=12, seed=4, film=False, progress=seen.append)
    assert result is not None
    assert read_result(folder.evaluation) == result
    assert result.episodes == seen
    assert result.knows_success
    assert result.policy_version == 17
    assert len(result.demo_lengths) == 3
    assert all(3 <= length <= 12 for length in result.demo_lengths)


def test_a_stopped_evaluation_leaves_the_last_one_in_place(make_run):
    folder = make_run()
    evaluate_run(folder, episodes=3, seed=0, film=False)
    before = folder.evaluation.read_bytes()
    assert evaluate_run(folder, episodes=3, seed=1, film=False, should_stop=lambda: True) is None
    assert folder.evaluation.read_bytes() == before


def test_an_environment_that_tells_no_success_is_known_as_such(make_run):
    result = evaluate_run(make_run("SilentToy-v0"), episodes=3, seed=0)
    assert result is not None
    assert not result.knows_success


def test_a_run_without_a_policy_says_how_to_get_one(make_run):
    with pytest.raises(CannotEvaluate, match="serl train --resume"):
        evaluate_run(make_run(trained=False), episodes=1, seed=0)


def test_no_episode_is_no_evaluation(make_run):
    with pytest.raises(CannotEvaluate, match="at least one"):
        evaluate_run(make_run(), episodes=0, seed=0)
