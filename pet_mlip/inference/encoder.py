"""From tokens to features in each frame by itself: the part of a layer that knows no atoms."""

import torch
from torch import Tensor, nn

from pet_mlip.inference.functions import silu
from pet_mlip.inference.linear import Linear, linear
from pet_mlip.inference.transformer import make_transformer_layer, pack, unpack
from pet_mlip.model.layer import GNNLayer as Reference


class Encoder(nn.Module):
    """The token MLP's last map and the transformer layers.

    What the derivative needs is a plain list of tensors, so that compiled functions can stand in.

    Args:
        reference: Where the weights come from.
        node_width: D_node.
    """

    def __init__(self, reference: Reference, node_width: int) -> None:
        super().__init__()
        self.node_width = node_width
        self.compress_out: Linear = linear(reference.compress_out)
        layers = [make_transformer_layer(x) for x in reference.layers]
        self.gated = layers[0].mlp.gated
        self.layers = nn.ModuleList(layers)

    def forward(
        self, nodes: Tensor, tokens: Tensor, log_switch: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Evaluate P frames, and leave the last transformer layer open.

        Args:
            nodes: Node features, (P, D_node).
            tokens: Hidden values of the token MLP before their activation, (P, M, D); overwritten.
            log_switch: log f of each token, that of the centre first, (P, T).

        Returns:
            Node features (P, D_node), edge features without what `close` adds (P, M, D), hidden
            values (P, M, F), and what the derivative needs.
        """
        hidden, slope = silu(tokens)
        edges = self.compress_out(hidden).to(tokens.dtype)
        saved = [slope]
        n_layers = len(self.layers)
        for i, layer in enumerate(self.layers):
            if i + 1 < n_layers:
                nodes, edges, of_layer = layer(nodes, edges, log_switch)
            else:
                nodes, edges, hidden, of_layer = layer.open(  # type: ignore[operator]
                    nodes, edges, log_switch
                )
            saved.extend(pack(of_layer))
        return nodes, edges, hidden, saved

    def vjp(
        self, of_nodes: Tensor, of_edges: Tensor, of_hidden: Tensor, saved: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient over nodes, tokens and log f, (P, T).

        Args:
            of_nodes: Gradient over the node features, (P, D_node).
            of_edges: That over the edge features, (P, M, D); overwritten.
            of_hidden: That over the hidden values, (P, M, F); overwritten.
            saved: What `forward` returned.
        """
        n_rows, n_edges = of_edges.shape[0], of_edges.shape[1]
        of_log_switch = torch.zeros(
            n_rows, n_edges + 1, dtype=of_edges.dtype, device=of_edges.device
        )
        n_layers = len(self.layers)
        size = (len(saved) - 1) // n_layers
        for step in range(n_layers):
            for i, layer in enumerate(self.layers):
                if i == n_layers - 1 - step:
                    of_layer = unpack(saved[1 + i * size : 1 + (i + 1) * size], self.gated)
                    if step == 0:
                        of_nodes, of_edges, of_scores = layer.open_vjp(  # type: ignore[operator]
                            of_nodes, of_edges, of_hidden, of_layer
                        )
                    else:
                        of_nodes, of_edges, of_scores = layer.vjp(  # type: ignore[operator]
                            of_nodes, of_edges, of_layer
                        )
                    of_log_switch += of_scores
        of_tokens = self.compress_out.vjp(of_edges).to(of_edges.dtype).mul_(saved[0])
        return of_nodes, of_tokens, of_log_switch

    def close(self, edges: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
        """Edge features (n, M, D) from sums over the frames of each atom.

        Args:
            edges: Sums of the edge features, (n, M, D); overwritten.
            hidden: Sums of the hidden values, (n, M, F).
            weight: Sums of the frames' weights, (n,); nothing if each atom has one of weight 1.
        """
        n_layers = len(self.layers)
        for i, layer in enumerate(self.layers):
            if i + 1 == n_layers:
                edges = layer.close(edges, hidden, weight)  # type: ignore[operator]
        return edges

    def close_vjp(self, of_edges: Tensor, averaging: bool) -> tuple[Tensor, Tensor]:
        """Gradient over the hidden values (n, M, F), and over the weights (n,) if averaging."""
        of_hidden, of_weight = of_edges[:0], of_edges[:0]
        n_layers = len(self.layers)
        for i, layer in enumerate(self.layers):
            if i + 1 == n_layers:
                of_hidden, of_weight = layer.close_vjp(of_edges, averaging)  # type: ignore[operator]
        return of_hidden, of_weight
