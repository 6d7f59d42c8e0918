"""Multi-head self-attention among the tokens of an environment."""

import torch
from torch import Tensor, nn

from pet_mlip.inference.linear import Linear, linear, linear_after_norm
from pet_mlip.model.transformer import Attention as Reference


class Attention(nn.Module):
    """See `pet_mlip.model.transformer.Attention`.

    Args:
        reference: Where the weights come from.
        norm: The norm before it, if there is one: its scale and offset are folded in.
    """

    def __init__(self, reference: Reference, norm: nn.Module | None) -> None:
        super().__init__()
        self.num_heads = reference.num_heads
        first = reference.input_linear
        into = linear(first) if norm is None else linear_after_norm(norm, first)
        # Queries come out scaled.
        factor = torch.ones_like(into.bias)
        factor[: into.weight.shape[1]] = reference.scale
        self.input_linear = Linear(into.weight * factor[:, None], into.bias * factor)
        self.output_linear = linear(reference.output_linear)

    def forward(self, tokens: Tensor, log_switch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attend.

        Args:
            tokens: (P, T, D).
            log_switch: log f of each token, -inf for absent ones, (P, T).

        Returns:
            The output (P, T, D), queries, keys and values (3, P * H, T, D / H), and the weights
            (P * H, T, T).
        """
        n_rows, n_tokens, width = tokens.shape
        heads, of_head = self.num_heads, width // self.num_heads
        qkv = self.input_linear(tokens).reshape(n_rows, n_tokens, 3, heads, of_head)
        qkv = qkv.permute(2, 0, 3, 1, 4).reshape(3, n_rows * heads, n_tokens, of_head)
        scores = torch.bmm(qkv[0], qkv[1].transpose(1, 2)).to(log_switch.dtype)
        scores.view(n_rows, heads, n_tokens, n_tokens).add_(log_switch[:, None, None, :])
        weights = torch.softmax(scores, dim=-1).to(qkv.dtype)
        mixed = torch.bmm(weights, qkv[2]).view(n_rows, heads, n_tokens, of_head)
        mixed = mixed.transpose(1, 2).reshape(n_rows, n_tokens, width)
        return self.output_linear(mixed), qkv, weights

    def vjp(self, given: Tensor, qkv: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient over the tokens (P, T, D) and over log f (P, T)."""
        n_rows, n_tokens, width = given.shape
        heads, of_head = self.num_heads, width // self.num_heads
        of_mixed = self.output_linear.vjp(given).reshape(n_rows, n_tokens, heads, of_head)
        of_mixed = of_mixed.transpose(1, 2).reshape(n_rows * heads, n_tokens, of_head)
        of_weights = torch.bmm(of_mixed, qkv[2].transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weights, weights, 2, weights.dtype)
        gradient = torch.empty_like(qkv)
        torch.bmm(of_scores, qkv[1], out=gradient[0])
        torch.bmm(of_scores.transpose(1, 2), qkv[0], out=gradient[1])
        torch.bmm(weights.transpose(1, 2), of_mixed, out=gradient[2])
        gradient = gradient.reshape(3, n_rows, heads, n_tokens, of_head).permute(1, 3, 0, 2, 4)
        gradient = gradient.reshape(n_rows, n_tokens, 3 * width)
        of_log_switch = of_scores.view(n_rows, heads * n_tokens, n_tokens).sum(dim=1)
        return self.input_linear.vjp(gradient), of_log_switch
