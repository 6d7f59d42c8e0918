"""Random numbers that depend on a structure's key and an atom's place in it, on nothing else.

Whatever batch, process or device a structure is evaluated in, it meets the same random frames.
"""

import math

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea, Flood, OOPSLA 2014); the constants as signed 64-bit integers.
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64


def mix(values: Tensor) -> Tensor:
    """A bijection of 64-bit integers whose output looks random; any shape, int64."""
    values = (values ^ _shift_right(values, 30)) * FIRST
    values = (values ^ _shift_right(values, 27)) * SECOND
    return values ^ _shift_right(values, 31)


def combine(keys: Tensor, numbers: Tensor) -> Tensor:
    """New keys from keys and small integers, int64; shapes broadcast."""
    return mix(keys + (numbers + 1) * GOLDEN)


def uniform(keys: Tensor, n: int) -> Tensor:
    """N numbers in [0, 1) for each key, (..., n) float64."""
    bits = combine(keys.unsqueeze(-1), torch.arange(n, device=keys.device))
    return _shift_right(bits, 11).to(torch.float64) * 2.0**-53


def normal(keys: Tensor, n: int) -> Tensor:
    """N normally distributed numbers for each key, (..., n) float64 (Box and Muller)."""
    draws = uniform(keys, 2 * n)
    radius = torch.sqrt(-2.0 * torch.log1p(-draws[..., :n]))
    return radius * torch.cos(2.0 * math.pi * draws[..., n:])


def _shift_right(values: Tensor, places: int) -> Tensor:
    """Shift that fills with zeros; torch's own copies the sign."""
    return (values >> places) & ((1 << (64 - places)) - 1)
