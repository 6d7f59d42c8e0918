"""Cutoff functions: smooth switches from 1 to 0 over the last ``width`` of the cutoff.

Cutoffs are tensors that broadcast with the distances.
"""

import math

import torch
from torch import Tensor


def cosine_switch(distance: Tensor, cutoff: Tensor, width: float) -> Tensor:
    """Half a cosine wave, once continuously differentiable at both ends."""
    x = ((distance - (cutoff - width)) / width).clamp(0.0, 1.0)
    return 0.5 * (1.0 + torch.cos(math.pi * x))


def bump_switch(distance: Tensor, cutoff: Tensor, width: float) -> Tensor:
    """(1 + tanh(cot(pi x))) / 2 with x rising from 0 to 1: infinitely differentiable."""
    x = (distance - (cutoff - width)) / width
    # Beyond these margins the function equals 0 or 1 to the last bit; cot itself would overflow.
    x = x.clamp(1e-6, 1.0 - 1e-6)
    # cos / sin, not 1 / tan: the latter's derivatives are wrong at x = 1/2, where tan diverges.
    return 0.5 * (1.0 + torch.tanh(torch.cos(math.pi * x) / torch.sin(math.pi * x)))


def cutoff_switch(distance: Tensor, cutoff: Tensor, width: float, function: str) -> Tensor:
    """The cutoff switch f(r) of the model, ``function`` being ``Bump`` or ``Cosine``."""
    if function == "Bump":
        return bump_switch(distance, cutoff, width)
    return cosine_switch(distance, cutoff, width)
