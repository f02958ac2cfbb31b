"""Training a classifier: real epochs over the training episodes, then temperature and threshold on others."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch.nn.functional import cross_entropy

from serl_suite.rewards.augment import gather_augmented
from serl_suite.rewards.calibration import choose_threshold, fit_temperature
from serl_suite.rewards.classifier import Card, Classifier, RewardModel
from serl_suite.rewards.config import BadClassifier, ClassifierConfig
from serl_suite.rewards.frames import Frames, check_cameras, split
from serl_suite.rewards.gate import parse_gate

__all__ = ["Epoch", "Training"]

MAX_GRADIENT = 10.0
"""Norm; a single odd batch must not undo an epoch."""


class Epoch(NamedTuple):
    """What an epoch came to."""

    number: int
    """From 1."""
    loss: float
    """Mean over the class-balanced training frames, augmented."""
    accuracy: float
    """On the training frames as they were augmented."""


class Training:
    """A classifier in the making.

    Args:
        frames: All there are; they are split here.
        config: Of the classifier.
        data: Where the frames come from, for the card.
        device: Of torch.

    Raises:
        BadClassifier: Too few episodes, a class without frames, pictures that are not square, or a bad gate.
        BadEncoder: There is no such backbone, or its weights do not fit.
    """

    def __init__(
        self, frames: Frames, config: ClassifierConfig, data: Sequence[Path], device: str = "cpu"
    ) -> None:
        self.config, self.frames = config, frames
        self.cameras = tuple(frames.clips[0].pictures)
        side = frames.clips[0].pictures[self.cameras[0]].shape[1]
        check_cameras(frames.spec, self.cameras, side, "the data")
        parse_gate(config.gate).check(frames.spec)
        self.parts = split(frames, config.calibration_share, config.test_share, config.seed)
        self._rng = np.random.default_rng(config.seed)
        self._device = torch.device(device)
        generator = torch.Generator().manual_seed(config.seed)
        self.network = Classifier(self.cameras, side, len(frames.classes), config, generator).to(self._device)
        part = frames.only(self.parts.training)
        self._labels = part.labels
        self._pictures = {camera: part.pictures(camera) for camera in self.cameras}
        counts = np.bincount(self._labels, minlength=len(frames.classes))
        if not counts.all():
            missing = [name for name, count in zip(frames.classes, counts, strict=True) if not count]
            raise BadClassifier(
                f"no training frame is of class {', '.join(missing)}; record some, or leave it out"
            )
        self._log_prior = np.log(counts / counts.sum())
        balance = counts.sum() / (len(counts) * counts)
        self._balance = torch.tensor(balance, dtype=torch.float32, device=self._device)
        self._card = Card(
            task=frames.spec.task, cameras=self.cameras, side=side, classes=frames.classes,
            success=frames.success, config=config, log_prior=tuple(self._log_prior.tolist()), temperature=1.0,
            threshold=0.5, data=tuple(str(path.resolve()) for path in data), parts=self.parts,
        )  # fmt: skip

    def epochs(self) -> Iterator[Epoch]:
        """Trains, an epoch for each `next`.

        Raises:
            BadClassifier: The loss is not finite any more.
        """
        config = self.config
        trained = [p for p in self.network.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
        updates = config.epochs * math.ceil(self._labels.size / config.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
        self.network.train()
        for number in range(1, config.epochs + 1):
            loss_sum = right = 0.0
            order = self._rng.permutation(self._labels.size)
            for start in range(0, order.size, config.batch):
                rows = order[start : start + config.batch]
                loss, logits = self.loss(rows)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(trained, MAX_GRADIENT)
                optimiser.step()
                schedule.step()
                loss_sum += loss.item() * rows.size
                right += float((logits.argmax(1).cpu().numpy() == self._labels[rows]).sum())
            if not math.isfinite(loss_sum):
                raise BadClassifier(f"the loss is {loss_sum} in epoch {number}; lower --learning-rate")
            yield Epoch(number, loss_sum / order.size, right / order.size)

    def loss(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Class-balanced cross-entropy of training frames, augmented anew, and their logits.

        Shape: (m,) -> (), (m, classes)
        """
        pictures = {
            camera: gather_augmented(array, rows, self.config, self._rng, self._device)
            for camera, array in self._pictures.items()
        }
        logits = self.network(pictures)
        labels = torch.from_numpy(self._labels[rows]).to(self._device)
        losses = cross_entropy(logits, labels, reduction="none")
        return (losses * self._balance[labels]).mean(), logits

    def finish(self) -> RewardModel:
        """The classifier, with temperature and threshold from the calibration episodes.

        Raises:
            BadClassifier: No threshold keeps to the false-positive rate.
        """
        part = self.frames.only(self.parts.calibration)
        plain = RewardModel(self.network, self._card)
        logits = np.concatenate([plain.logits(clip.pictures) for clip in part.clips])
        temperature = fit_temperature(logits, self._log_prior, part.labels)
        model = RewardModel(self.network, msgspec.structs.replace(self._card, temperature=temperature))
        success = self.frames.classes.index(self.frames.success)
        threshold = choose_threshold(
            model.judge_frames(part)[:, success], part.succeeded, self.config.target_fpr
        )
        if threshold > 1.0:
            raise BadClassifier(
                f"more than {100 * self.config.target_fpr:g} % of the failures look like certain successes, so no "
                "threshold will do; record more failures of that kind, or give a larger --target-fpr"
            )
        return RewardModel(self.network, msgspec.structs.replace(model.card, threshold=threshold))
