"""What a classifier's outputs mean: temperature, threshold, and how well both hold."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "BINS",
    "Reliability",
    "choose_threshold",
    "fit_temperature",
    "log_softmax",
    "rates_at",
    "reliability",
    "roc",
]

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
BINS = 15
TEMPERATURES = np.geomspace(0.5, 20.0, 400)
"""Where every calibration frame is right, the likelihood would ask for ever more certainty; 0.5 is its end."""
LOWEST_THRESHOLD = 0.5


class Reliability(NamedTuple):
    """Predicted probability against frequency, in bins of equal width."""

    predicted: Array
    """Mean prediction in each bin; NaN in an empty one. Shape: (BINS,)"""
    observed: Array
    """Share of successes. Shape: (BINS,)"""
    counts: npt.NDArray[np.int64]
    """Shape: (BINS,)"""
    error: float
    """Expected calibration error: the mean distance of the two, weighted by counts."""


def log_softmax(logits: Array) -> Array:
    """Shape: (n, classes) -> (n, classes)"""
    shifted = logits - logits.max(1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def fit_temperature(logits: Array, log_prior: Array, labels: npt.NDArray[np.int64]) -> float:
    """The T with which `softmax(logits / T + log_prior)` makes the labels most likely (Guo et al. 2017, arXiv
    1706.04599); the prior undoes the class balance of training.

    Args:
        logits: Shape: (n, classes)
        log_prior: Of the classes, as they are in the data. Shape: (classes,)
        labels: Shape: (n,)
    """
    rows = np.arange(labels.size)
    losses = [-log_softmax(logits / T + log_prior)[rows, labels].mean() for T in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def choose_threshold(probability: Array, succeeded: Bools, target_fpr: float) -> float:
    """The lowest threshold, 0.5 or more, that at most `target_fpr` of the failure frames reach."""
    failures = np.sort(probability[~succeeded])[::-1]
    allowed = int(target_fpr * failures.size)
    if allowed >= failures.size:
        return LOWEST_THRESHOLD
    return max(LOWEST_THRESHOLD, float(np.nextafter(failures[allowed], 2.0)))


def rates_at(probability: Array, succeeded: Bools, threshold: float) -> tuple[float, float]:
    """False positive rate and true positive rate; NaN without frames of the kind."""
    declared = probability >= threshold
    return _share(declared[~succeeded]), _share(declared[succeeded])


def roc(probability: Array, succeeded: Bools) -> tuple[Array, Array, float]:
    """False and true positive rates over all thresholds, from (0, 0) to (1, 1), and the area below; NaN where frames
    of one kind are missing.

    Shapes: (n,), (n,) -> (m,), (m,)
    """
    order = np.argsort(-probability, kind="stable")
    last = np.append(np.flatnonzero(np.diff(probability[order])), order.size - 1)  # of equal probabilities
    true = np.append(0.0, np.cumsum(succeeded[order])[last] / max(1, succeeded.sum()))
    false = np.append(0.0, np.cumsum(~succeeded[order])[last] / max(1, (~succeeded).sum()))
    area = float(np.trapezoid(true, false)) if 0 < succeeded.sum() < succeeded.size else float("nan")
    return false, true, area


def reliability(probability: Array, succeeded: Bools) -> Reliability:
    """Compares probabilities of success with what happened. Shapes: (n,), (n,)"""
    which = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(which, minlength=BINS)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(which, probability, BINS) / counts
        observed = np.bincount(which, succeeded.astype(np.float64), BINS) / counts
    distance = np.nan_to_num(np.abs(predicted - observed))
    return Reliability(predicted, observed, counts, float((counts * distance).sum() / max(1, counts.sum())))


def _share(flags: Bools) -> float:
    return float(flags.mean()) if flags.size else float("nan")
