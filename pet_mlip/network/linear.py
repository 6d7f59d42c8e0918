"""Linear maps and the norms before them."""

import torch
from torch import Tensor, nn

from pet_mlip.network.functions import normalise, normalise_vjp


class Linear(nn.Linear):
    """Compute x W^T + b in the dtype of the weights.

    ``rounds`` tells what the precision ``bf16-mixed`` rounds (`pet_mlip.engine.precision`).
    """

    def __init__(self, size: int, size_out: int) -> None:
        super().__init__(size, size_out)
        self.rounds = True

    def forward(self, x: Tensor) -> Tensor:
        """(..., D_out) of x (..., D_in)."""
        return nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias)

    def vjp(self, grad: Tensor) -> Tensor:
        """Compute the gradient over x from that over the output, in the dtype of the weights."""
        return torch.matmul(grad.to(self.weight.dtype), self.weight)


class Norm(nn.Module):
    """Normalise the last dimension: RMSNorm, or LayerNorm, whose mean is subtracted first.

    y = x / sqrt(mean(x^2) + eps) * weight + bias (RMSNorm: no bias).
    """

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.layer_norm = kind == "LayerNorm"
        self.folded = False
        self.weight = nn.Parameter(torch.ones(width))
        if self.layer_norm:
            self.bias = nn.Parameter(torch.zeros(width))
        else:
            self.register_buffer("bias", torch.zeros(0), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, and the normalised values and the factor that `vjp` needs."""
        normed, inverse = normalise(x, self.layer_norm)
        if self.folded:
            return normed, normed, inverse
        if self.layer_norm:
            return torch.addcmul(self.bias, normed, self.weight), normed, inverse
        return normed * self.weight, normed, inverse

    def vjp(self, grad: Tensor, normed: Tensor, inverse: Tensor) -> Tensor:
        """Compute the gradient over x; ``grad`` may be overwritten."""
        if not self.folded:
            grad = grad * self.weight
        return normalise_vjp(grad.to(normed.dtype), normed, inverse, self.layer_norm)

    @torch.jit.unused
    def fold_into(self, linear: nn.Linear) -> None:
        """Let the linear map that follows take over weight and bias, for good."""
        with torch.no_grad():
            if self.layer_norm:
                linear.bias.add_(linear.weight @ self.bias)
            linear.weight.mul_(self.weight)
        self.folded = True
