"""Linear maps with fixed weights, evaluated in the precision that these are kept in."""

import torch
from torch import Tensor, nn


class Product(nn.Module):
    """x W^T."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().clone())

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        """Add the product of x (R, D_in) to ``out`` (R, D_out)."""
        if self.weight.dtype == out.dtype:
            return out.addmm_(x, self.weight.t())
        return out.add_(torch.matmul(x.to(self.weight.dtype), self.weight.t()))

    def vjp(self, given: Tensor) -> Tensor:
        """Gradient over x from that over the output, in the dtype of the weights."""
        return torch.matmul(given.to(self.weight.dtype), self.weight)


class Linear(nn.Module):
    """x W^T + b."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(..., D_out) of x (..., D_in), in the dtype of the weights."""
        return nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias)

    def vjp(self, given: Tensor) -> Tensor:
        """Gradient over x from that over the output, in the dtype of the weights."""
        return torch.matmul(given.to(self.weight.dtype), self.weight)


def linear(module: nn.Module) -> Linear:
    """The same map as a ``torch.nn.Linear``."""
    assert isinstance(module, nn.Linear)
    return Linear(module.weight, module.bias)


def linear_after_norm(norm: nn.Module, module: nn.Module) -> Linear:
    """A linear map that takes over the scale and offset of the norm before it."""
    assert isinstance(module, nn.Linear)
    scale, offset = affine(norm)
    return Linear(module.weight * scale, module.bias + module.weight @ offset)


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and offset of an RMSNorm or LayerNorm, (D,) each."""
    assert isinstance(norm, (nn.RMSNorm, nn.LayerNorm)) and norm.weight is not None
    offset = norm.bias if isinstance(norm, nn.LayerNorm) else None
    return norm.weight, torch.zeros_like(norm.weight) if offset is None else offset
