"""Multi-head self-attention among the tokens of an environment."""

import torch
from torch import Tensor, nn

from pet_mlip.network.linear import Linear


class Attention(nn.Module):
    """Attend, token j counting f_j times.

    With scores s_ij the weights are f_j exp(s_ij) / sum_k f_k exp(s_ik): a neighbour leaves no
    trace when its cutoff function f_j reaches zero, and a padded place (f_j = 0) never had one.
    """

    def __init__(self, width: int, num_heads: int, temperature: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = 1.0 / ((width // num_heads) ** 0.5 * temperature)
        self.input_linear = Linear(width, 3 * width)
        self.output_linear = Linear(width, width)

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
        query = qkv[0] if self.scale == 1.0 else self.scale * qkv[0]
        # Written out, not fused: the gradient over log f and a second derivative are needed.
        scores = torch.bmm(query, qkv[1].transpose(1, 2)).to(log_switch.dtype)
        scores.view(n_rows, heads, n_tokens, n_tokens).add_(log_switch[:, None, None, :])
        weights = torch.softmax(scores, dim=-1).to(qkv.dtype)
        mixed = torch.bmm(weights, qkv[2]).view(n_rows, heads, n_tokens, of_head)
        mixed = mixed.transpose(1, 2).reshape(n_rows, n_tokens, width)
        return self.output_linear(mixed), qkv, weights

    def vjp(self, grad: Tensor, qkv: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradient over the tokens (P, T, D) and over log f (P, T)."""
        n_rows, n_tokens, width = grad.shape
        heads, of_head = self.num_heads, width // self.num_heads
        grad_mixed = self.output_linear.vjp(grad).reshape(n_rows, n_tokens, heads, of_head)
        grad_mixed = grad_mixed.transpose(1, 2).reshape(n_rows * heads, n_tokens, of_head)
        grad_weights = torch.bmm(grad_mixed, qkv[2].transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_weights, weights, 2, weights.dtype)
        query, key = qkv[0], qkv[1]
        if self.scale != 1.0:
            query, key = self.scale * query, self.scale * key
        if torch.is_grad_enabled():
            grads = torch.stack(
                [
                    torch.bmm(grad_scores, key),
                    torch.bmm(grad_scores.transpose(1, 2), query),
                    torch.bmm(weights.transpose(1, 2), grad_mixed),
                ]
            )
        else:
            grads = torch.empty_like(qkv)
            torch.bmm(grad_scores, key, out=grads[0])
            torch.bmm(grad_scores.transpose(1, 2), query, out=grads[1])
            torch.bmm(weights.transpose(1, 2), grad_mixed, out=grads[2])
        grads = grads.reshape(3, n_rows, heads, n_tokens, of_head).permute(1, 3, 0, 2, 4)
        grads = grads.reshape(n_rows, n_tokens, 3 * width)
        grad_logs = grad_scores.view(n_rows, heads * n_tokens, n_tokens).sum(dim=1)
        return self.input_linear.vjp(grads), grad_logs

    @torch.jit.unused
    def fold_scale(self) -> None:
        """Let the map that makes the queries take over their scale, for good."""
        width = self.output_linear.in_features
        with torch.no_grad():
            self.input_linear.weight[:width].mul_(self.scale)
            self.input_linear.bias[:width].mul_(self.scale)
        self.scale = 1.0
