"""How training ends: with an evaluation that passes, or with the budget."""

import logging
from collections.abc import Iterable

import msgspec

from serl_suite.wire.messages import Evaluation

__all__ = ["Outcome", "first_passed"]

log = logging.getLogger(__name__)


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How training ended; written to outcome.json when it did."""

    reason: str
    passed: bool
    """Whether an evaluation during training passed."""
    env_steps: int
    updates: int
    policy_version: int
    training_s: float
    """Wall-clock of training, over all starts of the run."""


def first_passed(evaluations: Iterable[Evaluation], pass_at: float) -> Evaluation | None:
    """The first of the evaluations whose success rate is `pass_at` or more; None where there is none."""
    for evaluation in evaluations:
        rate = sum(episode.success for episode in evaluation.episodes) / len(evaluation.episodes)
        log.info(
            "evaluation of policy %d: %.0f %% of %d", evaluation.version, 100 * rate, len(evaluation.episodes)
        )
        if rate >= pass_at:
            return evaluation
    return None
