"""Temperature, threshold, ROC and reliability against what they are defined as."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from serl_suite.rewards.calibration import (
    choose_threshold,
    fit_temperature,
    log_softmax,
    rates_at,
    reliability,
    roc,
)

judged = st.lists(
    st.tuples(st.integers(0, 20).map(lambda k: k / 20), st.booleans()), min_size=4, max_size=60
).filter(lambda rows: len({truth for _, truth in rows}) == 2)


def arrays(rows):
    return np.array([p for p, _ in rows]), np.array([truth for _, truth in rows])


@given(judged)
def test_the_area_is_how_often_a_success_is_ranked_above_a_failure(rows):
    probability, succeeded = arrays(rows)
    false, true, area = roc(probability, succeeded)
    u = mannwhitneyu(probability[succeeded], probability[~succeeded]).statistic
    assert area == pytest.approx(u / (succeeded.sum() * (~succeeded).sum()))
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()


@given(judged, st.floats(0.001, 0.9))
def test_the_threshold_is_the_lowest_that_keeps_the_target(rows, target):
    probability, succeeded = arrays(rows)
    threshold = choose_threshold(probability, succeeded, target)
    assert rates_at(probability, succeeded, threshold)[0] <= target
    below = [p for p in probability if 0.5 <= p < threshold]
    if below:
        assert rates_at(probability, succeeded, max(below))[0] > target


def test_the_temperature_that_made_the_labels_is_found():
    rng = np.random.default_rng(0)
    logits, prior = 8.0 * rng.normal(size=(20_000, 3)), np.log([0.7, 0.2, 0.1])
    chances = np.exp(log_softmax(logits / 3.0 + prior))
    labels = (chances.cumsum(1) < rng.uniform(size=(len(logits), 1))).sum(1)
    assert fit_temperature(logits, prior, labels) == pytest.approx(3.0, rel=0.05)


def test_the_calibration_error_is_the_distance_of_saying_from_being():
    rng = np.random.default_rng(0)
    probability = rng.uniform(size=50_000)
    honest = rng.uniform(size=probability.size) < probability
    assert reliability(probability, honest).error < 0.01
    assert reliability(np.full(1000, 0.9), np.arange(1000) % 2 == 0).error == pytest.approx(0.4)
