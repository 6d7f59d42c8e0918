"""Matrix products that must not round coordinates."""

import torch
from torch import Tensor


def add_product(out: Tensor, x: Tensor, weight: Tensor, rounding: bool) -> Tensor:
    """Add ``x weight`` to ``out``, in place unless autograd records.

    Args:
        out: (R, D).
        x: (R, K).
        weight: (K, D).
        rounding: Whether products round their factors to TF32's 11 bits. Both are then cut into two
            parts that such a product takes without rounding, or nearly so: to about 1e-6.
    """
    if rounding:
        x, weight = split_factors(x, weight)
    return torch.addmm(out, x, weight) if torch.is_grad_enabled() else out.addmm_(x, weight)


def split_factors(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cut factors (..., n, k) and (..., k, m) into parts whose rounded product is that of both."""
    large, large_factor = leading_bits(x), leading_bits(y)
    x = torch.cat([large, large, x - large], dim=-1)
    return x, torch.cat([large_factor, y - large_factor, large_factor], dim=-2)


def leading_bits(x: Tensor) -> Tensor:
    """Round float32 numbers to 11 of their 24 significant bits (Dekker's splitting)."""
    scaled = x * 8193.0
    return scaled - (scaled - x)


def multiply(x: Tensor, y: Tensor, rounding: bool) -> Tensor:
    """Compute x y of batches of matrices (B, n, k) and (B, k, m).

    Args:
        x: (B, n, k).
        y: (B, k, m).
        rounding: As in `add_product`.
    """
    if rounding:
        x, y = split_factors(x, y)
    return torch.bmm(x, y)
