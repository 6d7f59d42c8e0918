"""Exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class AveragedWeights(nn.Module):
    """A copy of a module whose parameters follow the original's slowly.

    The same as `torch.optim.swa_utils.AveragedModel`, which on GPUs waits for the device in each
    update. The decay rises as min(decay, (1 + n) / (10 + n)) over the updates n, so that the
    average soon forgets the initial weights.

    Args:
        module: The original; the copy is in evaluation mode and asks for no gradients.
        decay: Largest weight of the past, 0 for no averaging.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        self.module: Any = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._pairs: tuple[list[torch.Tensor], list[torch.Tensor]] | None = None

    def train(self, mode: bool = True) -> AveragedWeights:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the current parameters of the original."""
        if self._pairs is None:
            self._pairs = (list(self.module.parameters()), list(module.parameters()))
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(*self._pairs, 1 - decay)
        self.updates += 1

    def _apply(self, fn: Any, recurse: bool = True) -> AveragedWeights:
        self._pairs = None  # a move to another device may replace the parameters
        return super()._apply(fn, recurse)
