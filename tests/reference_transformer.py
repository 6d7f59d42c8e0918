"""The transformer over the tokens of one environment: a central token and its neighbours."""

import torch
from torch import Tensor, nn

from pet_mlip.network.hypers import PETHypers


def make_norm(kind: str, width: int) -> nn.Module:
    """``RMSNorm`` or ``LayerNorm`` over the last dimension."""
    return nn.RMSNorm(width) if kind == "RMSNorm" else nn.LayerNorm(width)


class FeedForward(nn.Module):
    """Two-layer perceptron: Linear, SiLU, Linear, or gated (``SwiGLU``: value * sigmoid(gate))."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.gated = activation == "SwiGLU"
        self.w_in = nn.Linear(width, 2 * hidden if self.gated else hidden)
        self.w_out = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to the last dimension."""
        x = self.w_in(x)
        if self.gated:
            value, gate = x.chunk(2, dim=-1)
            return self.w_out(value * torch.sigmoid(gate))
        return self.w_out(nn.functional.silu(x))


class Attention(nn.Module):
    """Multi-head self-attention in which token j counts f_j times.

    With scores s_ij the weights are f_j exp(s_ij) / sum_k f_k exp(s_ik): a neighbour leaves no
    trace when its cutoff switch f_j reaches zero, and a padded place (f_j = 0) never had one.
    """

    def __init__(self, width: int, num_heads: int, temperature: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = 1.0 / ((width // num_heads) ** 0.5 * temperature)
        self.input_linear = nn.Linear(width, 3 * width)
        self.output_linear = nn.Linear(width, width)

    def forward(self, tokens: Tensor, log_switch: Tensor) -> Tensor:
        """Attend.

        Args:
            tokens: (P, T, D).
            log_switch: log f of each token, -inf for absent ones, (P, T).
        """
        n_rows, n_tokens, width = tokens.shape
        qkv = self.input_linear(tokens)
        qkv = qkv.reshape(n_rows, n_tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        # Written out, not fused: torch's fused attention cannot be differentiated twice.
        scores = torch.matmul(query * self.scale, key.transpose(-2, -1))
        weights = torch.softmax(scores + log_switch[:, None, None, :], dim=-1)
        mixed = torch.matmul(weights, value).transpose(1, 2).reshape(n_rows, n_tokens, width)
        return self.output_linear(mixed)


class TransformerLayer(nn.Module):
    """Attention and MLP on the tokens, with a wider central token where d_node != d_pet."""

    def __init__(self, hypers: PETHypers) -> None:
        super().__init__()
        width, node_width = hypers.d_pet, hypers.d_node
        self.pre_norm = hypers.transformer_type == "PreLN"
        self.wide_node = node_width != width
        self.attention = Attention(width, hypers.num_heads, hypers.attention_temperature)
        self.norm_attention = make_norm(hypers.normalization, width)
        self.norm_mlp = make_norm(hypers.normalization, width)
        self.mlp = FeedForward(width, hypers.d_feedforward, hypers.activation)
        if self.wide_node:
            self.center_contraction: nn.Module = nn.Linear(node_width, width)
            self.center_expansion: nn.Module = nn.Linear(width, node_width)
            self.norm_center_features = make_norm(hypers.normalization, node_width)
            self.center_mlp: nn.Module = FeedForward(node_width, 2 * node_width, hypers.activation)
        else:
            self.center_contraction = nn.Identity()
            self.center_expansion = nn.Identity()
            self.norm_center_features = nn.Identity()
            self.center_mlp = nn.Identity()

    def forward(self, nodes: Tensor, edges: Tensor, log_switch: Tensor) -> tuple[Tensor, Tensor]:
        """Update node features (P, 1, D_node) and edge tokens (P, M, D)."""
        tokens = torch.cat([self.center_contraction(nodes), edges], dim=1)
        if self.pre_norm:
            mixed = self.attention(self.norm_attention(tokens), log_switch)
            center = mixed[:, :1]
            edges = edges + mixed[:, 1:]
            edges = edges + self.mlp(self.norm_mlp(edges))
        else:
            tokens = self.norm_attention(tokens + self.attention(tokens, log_switch))
            tokens = self.norm_mlp(tokens + self.mlp(tokens))
            center = tokens[:, :1]
            edges = tokens[:, 1:]
        if self.wide_node:
            nodes = nodes + self.center_expansion(center)
            nodes = nodes + self.center_mlp(self.norm_center_features(nodes))
        else:
            # As in the published models: here the central token has no residual of its own.
            nodes = center
        return nodes, edges
