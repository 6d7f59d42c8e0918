"""The two-layer perceptron of the tokens."""

import torch
from torch import Tensor, nn

from pet_mlip.inference.functions import silu
from pet_mlip.inference.linear import Linear, linear
from pet_mlip.model.transformer import FeedForward as Reference


class FeedForward(nn.Module):
    """See `pet_mlip.model.transformer.FeedForward`.

    Args:
        reference: Where the weights come from.
        w_in: Its first map, with the norm before it folded in.
    """

    def __init__(self, reference: Reference, w_in: Linear) -> None:
        super().__init__()
        self.gated = reference.gated
        self.w_in = w_in
        self.w_out = linear(reference.w_out)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The output (..., D), and the derivatives of the hidden values."""
        hidden, slopes = self.hidden(x)
        return self.w_out(hidden), slopes

    def hidden(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Hidden values (..., F), and their derivatives over the first map."""
        x = self.w_in(x)
        if not self.gated:
            y, slope = silu(x)
            return y, [slope]
        width = x.shape[-1] // 2
        of_value = torch.sigmoid(x[..., width:])
        hidden = x[..., :width] * of_value
        return hidden, [of_value, torch.addcmul(hidden, hidden, of_value, value=-1.0)]

    def vjp(self, given: Tensor, slopes: list[Tensor]) -> Tensor:
        """Gradient over the input."""
        return self.hidden_vjp(self.w_out.vjp(given), slopes)

    def hidden_vjp(self, of_hidden: Tensor, slopes: list[Tensor]) -> Tensor:
        """Gradient over the input from that over the hidden values, which is overwritten."""
        if not self.gated:
            return self.w_in.vjp(of_hidden.mul_(slopes[0]))
        width = of_hidden.shape[-1]
        shape = list(of_hidden.shape)
        shape[-1] = 2 * width
        both = torch.empty(shape, dtype=of_hidden.dtype, device=of_hidden.device)
        torch.mul(of_hidden, slopes[0], out=both[..., :width])
        torch.mul(of_hidden, slopes[1], out=both[..., width:])
        return self.w_in.vjp(both)
