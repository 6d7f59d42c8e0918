"""The two-layer perceptron of the tokens."""

from torch import Tensor, nn

from pet_mlip.network.functions import gate, gate_vjp, silu, silu_vjp
from pet_mlip.network.linear import Linear


class FeedForward(nn.Module):
    """Linear, SiLU, Linear, or gated (``SwiGLU``: value * sigmoid(gate) in place of SiLU)."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.gated = activation == "SwiGLU"
        self.w_in = Linear(width, 2 * hidden if self.gated else hidden)
        self.w_out = Linear(hidden, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output (..., D) and what `vjp` needs, (..., F or 2 F)."""
        x = self.w_in(x)
        if not self.gated:
            return self.w_out(silu(x)), x
        hidden, saved = gate(x)
        return self.w_out(hidden), saved

    def vjp(self, grad: Tensor, saved: Tensor) -> Tensor:
        """Compute the gradient over the input."""
        grad = self.w_out.vjp(grad)
        return self.w_in.vjp(gate_vjp(grad, saved) if self.gated else silu_vjp(grad, saved))
