"""How far the training is, and the learning rate there."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pet_mlip.config import TrainingConfig


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
    best_loss: float = math.inf
    """Smallest validation loss."""
    best_epoch: int = 0
    """Epoch of the smallest validation loss."""
    waited: int = 0
    """Validations since then."""
    stopped: bool = False
    """Whether early stopping ended the training."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        return asdict(self)

    def fraction(self, config: TrainingConfig, n_batches: int) -> float:
        """Part of the training that is done, 0 to 1, by epochs or by time, whatever is ahead."""
        done = 0.0
        if config.epochs is not None:
            done = (self.epoch + self.batch / max(n_batches, 1)) / config.epochs
        if config.max_time is not None:
            done = max(done, self.elapsed / config.max_time)
        return min(done, 1.0)

    def out_of_time(self, config: TrainingConfig) -> bool:
        """Whether ``max_time`` is over."""
        return config.max_time is not None and self.elapsed >= config.max_time

    def finished(self, config: TrainingConfig) -> bool:
        """Whether nothing is left to train."""
        all_epochs = config.epochs is not None and self.epoch >= config.epochs
        return self.stopped or all_epochs or self.out_of_time(config)


def learning_rate(config: TrainingConfig, fraction: float) -> float:
    """Linear warm-up, then half a cosine down to zero, at a fraction (0 to 1) of the training."""
    if fraction < config.warmup:
        return config.learning_rate * fraction / config.warmup
    decay = (fraction - config.warmup) / (1 - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * decay))
