"""Batches of which a part are demonstrations: from two replays, one after the other."""

from collections.abc import Sequence

import torch

from serl_suite.data.replay import EVERYTHING, Batch, Replay

__all__ = ["join", "mixed_sample", "mixed_split"]


def mixed_split(
    online: Replay, demos: Replay | None, batch_size: int, demo_fraction: float
) -> tuple[int, int]:
    """Transitions of a batch from `online` and from `demos`: `round(batch_size * demo_fraction)` from the second.

    Where one of the two has nothing to give, the other gives all.
    """
    if demos is None or len(demos) == 0:
        return batch_size, 0
    wanted = batch_size if len(online) == 0 else round(batch_size * demo_fraction)
    return batch_size - wanted, wanted


def mixed_sample(
    online: Replay, demos: Replay | None, batch_size: int, demo_fraction: float, share: slice = EVERYTHING
) -> Batch:
    """A batch split as by `mixed_split`, demonstrations last; of either the given part.

    Raises:
        EmptyReplay: neither holds a transition.
    """
    ours, theirs = mixed_split(online, demos, batch_size, demo_fraction)
    if demos is None or theirs == 0:
        return online.sample(batch_size, share)
    if ours == 0:
        return demos.sample(batch_size, share)
    return join([online.sample(ours, share), demos.sample(theirs, share)])


def join(batches: Sequence[Batch]) -> Batch:
    """Batches of the same replays' kind, one after the other."""
    if len(batches) == 1:
        return batches[0]
    first, costs = batches[0], [batch.cost for batch in batches if batch.cost is not None]

    def joined(name: str) -> torch.Tensor:
        return torch.cat([getattr(batch, name) for batch in batches])

    return Batch(
        joined("state"),
        {key: torch.cat([batch.images[key] for batch in batches]) for key in first.images},
        joined("action"),
        joined("reward"),
        joined("mask"),
        joined("next_state"),
        {key: torch.cat([batch.next_images[key] for batch in batches]) for key in first.next_images},
        torch.cat(costs) if len(costs) == len(batches) else None,
    )
