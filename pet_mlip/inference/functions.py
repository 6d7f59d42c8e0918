"""Elementwise functions and normalisation, with what their derivatives need."""

import torch
from torch import Tensor


def silu(x: Tensor) -> tuple[Tensor, Tensor]:
    """X sigmoid(x), in place of ``x``, and its derivative s + y (1 - s)."""
    slope = torch.sigmoid(x)
    x.mul_(slope)
    torch.lerp(x, torch.ones(1, dtype=x.dtype, device=x.device), slope, out=slope)
    return x, slope


def inverse_norm(x: Tensor, centred: bool) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last dimension, kept as a dimension of one.

    Args:
        x: (..., D).
        centred: Whether the mean of x is zero already, as in a LayerNorm; its eps is another.
    """
    eps = 1e-5
    if not centred:
        # What torch's RMSNorm takes by default.
        eps = 1.1920928955078125e-07 if x.dtype == torch.float32 else 2.220446049250313e-16
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.mul_(norm).div_(x.shape[-1]).add_(eps).rsqrt_()


def normalise(x: Tensor, layer_norm: bool, out: Tensor) -> Tensor:
    """Write x normalised to ``out``; returns the factor that did it.

    Args:
        x: (..., D).
        layer_norm: Subtract the mean first; otherwise root mean square only.
        out: (..., D), of any strides.
    """
    if layer_norm:
        x = x - x.mean(dim=-1, keepdim=True)
    inverse = inverse_norm(x, layer_norm)
    torch.mul(x, inverse, out=out)
    return inverse


def normalise_vjp(given: Tensor, normed: Tensor, inverse: Tensor, layer_norm: bool) -> Tensor:
    """Gradient over what was normalised; ``given`` is overwritten.

    Args:
        given: Gradient over the normalised values, (..., D).
        normed: The normalised values.
        inverse: What `normalise` returned.
        layer_norm: As in `normalise`.
    """
    width = normed.shape[-1]
    projection = (given * normed).sum(dim=-1, keepdim=True)
    if layer_norm:
        given.sub_(given.mean(dim=-1, keepdim=True))
    return given.addcmul_(normed, projection, value=-1.0 / width).mul_(inverse)


def add_exact_product(out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Add ``x weight`` to ``out``, to about 1e-6 even where products round to TF32's 11 bits.

    Both factors are cut into two parts that such a product takes without rounding, or nearly so.

    Args:
        out: (R, D) float32; overwritten.
        x: (R, K) float32.
        weight: (K, D) float32.
    """
    large, large_weight = leading_bits(x), leading_bits(weight)
    parts = torch.cat([large, large, x - large], dim=1)
    weights = torch.cat([large_weight, weight - large_weight, large_weight])
    return out.addmm_(parts, weights)


def leading_bits(x: Tensor) -> Tensor:
    """The float32 numbers rounded to 11 of their 24 significant bits (Dekker's splitting)."""
    scaled = x * 8193.0
    return scaled - (scaled - x)
