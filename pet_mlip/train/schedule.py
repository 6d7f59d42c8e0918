"""How far the training is, and the learning rate there."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pet_mlip.config import TrainingConfig

RESERVE = 1.5
"""Part of the longest validation's time that is kept for the last one."""


@dataclass
class Progress:
    """Where a training stands: all that a resumed run has to know besides the weights."""

    epoch: int = 0
    """Completed epochs."""
    batch: int = 0
    """Completed batches of the current epoch."""
    step: int = 0
    """Optimiser steps."""
    elapsed: float = 0.0
    """Seconds of training and validation."""
    loss_sum: float = 0.0
    """Sum of the losses of the current epoch's batches."""
    gradient_sum: float = 0.0
    """Sum of the gradient norms of the current epoch's batches."""
    best_score: float = math.inf
    """Smallest score of a validation (`pet_mlip.train.loss.Loss.score`)."""
    best_epoch: int = 0
    """Its epoch."""
    waited: int = 0
    """Validations since then."""
    stopped: bool = False
    """Whether early stopping ended the training."""
    validation_seconds: float = 0.0
    """That the longest of the latest validations took; an estimate until there was one."""
    step_seconds: float = 0.0
    """That a step takes."""
    pending: dict[str, float] = field(default_factory=dict)
    """Metrics of the last epoch (max_time may have cut it off) as long as its validation is due."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        return asdict(self)

    def fraction(self, config: TrainingConfig, n_batches: int) -> float:
        """Part of the training that is done, 0 to 1, by epochs or by time, whatever is ahead."""
        done = 0.0
        if config.epochs is not None:
            done = (self.epoch + self.batch / max(n_batches, 1)) / config.epochs
        if config.max_time is not None:
            done = max(done, self.elapsed / self.training_time(config))
        return min(done, 1.0)

    def training_time(self, config: TrainingConfig) -> float:
        """Seconds after which no step may begin, so that a validation ends within ``max_time``."""
        if config.max_time is None:
            return math.inf
        # The clock is read when a step begins: that step, and one that follows. If the last
        # validation was broken off, the end of the schedule would be lost: on a machine that others
        # use too, it may take longer than those before.
        rest = RESERVE * self.validation_seconds + 2 * self.step_seconds
        return max(config.max_time - rest, 0.5 * config.max_time)

    def must_end(self, config: TrainingConfig) -> bool:
        """Whether a validation has to be broken off: time is over.

        The first one may take a tenth longer, since without it nothing is known of the model.
        """
        if config.max_time is None:
            return False
        grace = max(0.1 * config.max_time, 1.0) if self.best_epoch == 0 else 0.0
        return self.elapsed > config.max_time + grace

    def out_of_time(self, config: TrainingConfig) -> bool:
        """Whether ``max_time`` leaves time for the last validation only."""
        return self.elapsed >= self.training_time(config)

    def finished(self, config: TrainingConfig) -> bool:
        """Whether no step is left; the last validation may still be due (``pending``)."""
        all_epochs = config.epochs is not None and self.epoch >= config.epochs
        return self.stopped or all_epochs or self.out_of_time(config)


def learning_rate(config: TrainingConfig, fraction: float) -> float:
    """Linear warm-up, then half a cosine down to zero, at a fraction (0 to 1) of the training."""
    if fraction < config.warmup:
        return config.largest_rate * fraction / config.warmup
    decay = (fraction - config.warmup) / (1 - config.warmup)
    return config.largest_rate * 0.5 * (1 + math.cos(math.pi * decay))
