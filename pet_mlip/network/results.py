"""Scalars, vectors and tensors of atoms from node and edge features.

The features are invariant, so that a number of an edge times its direction is a vector which turns
with the atoms, and times the outer product of its direction a tensor:

    scalar:  y_i = node_i + sum_j f_ij edge_ij
    vector:  y_i = sum_j f_ij edge_ij r_ij / |r_ij|
    tensor:  y_i = (node_i + sum_j f_ij edge_ij) 1 + sum_j f_ij pair_ij (r_ij r_ij^T) / |r_ij|^2

with the cutoff function f. Nothing is averaged over frames here. These results have no derivative
over positions; in training autograd goes through them.
"""

import torch
from torch import Tensor, nn

from pet_mlip.graph.hypers import PETHypers
from pet_mlip.network.readout import Head


class ScalarReadout(nn.Module):
    """Compute a scalar of each atom."""

    def __init__(self, hypers: PETHypers) -> None:
        super().__init__()
        self.node_head = Head(hypers.d_node, hypers.d_head)
        self.edge_head = Head(hypers.d_pet, hypers.d_head)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return what the nodes (N, D_node) contribute, (N,)."""
        return self.node_head(nodes)[0]

    def of_edges(self, edges: Tensor, switch: Tensor, directions: Tensor) -> Tensor:
        """Return what each edge contributes to its centre, (E,).

        Args:
            edges: Features, (E, D).
            switch: Cutoff function, (E,) float64, so that results are.
            directions: Unit vectors, (E, 3) float64.
        """
        return self.edge_head(edges)[0] * switch


class VectorReadout(nn.Module):
    """Compute a vector of each atom."""

    def __init__(self, hypers: PETHypers) -> None:
        super().__init__()
        self.edge_head = Head(hypers.d_pet, hypers.d_head)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return zeros, (N, 3): a node knows no direction."""
        return nodes.new_zeros(nodes.shape[0], 3)

    def of_edges(self, edges: Tensor, switch: Tensor, directions: Tensor) -> Tensor:
        """Return what each edge contributes to its centre, (E, 3); see `ScalarReadout`."""
        return (self.edge_head(edges)[0] * switch).unsqueeze(1) * directions


class TensorReadout(nn.Module):
    """Compute a symmetric tensor of each atom."""

    def __init__(self, hypers: PETHypers) -> None:
        super().__init__()
        self.node_head = Head(hypers.d_node, hypers.d_head)
        self.edge_head = Head(hypers.d_pet, hypers.d_head)
        self.pair_head = Head(hypers.d_pet, hypers.d_head)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return what the nodes (N, D_node) contribute, (N, 3, 3)."""
        return isotropic(self.node_head(nodes)[0])

    def of_edges(self, edges: Tensor, switch: Tensor, directions: Tensor) -> Tensor:
        """Return what each edge contributes to its centre, (E, 3, 3); see `ScalarReadout`."""
        along = (self.pair_head(edges)[0] * switch)[:, None, None]
        outer = directions.unsqueeze(2) * directions.unsqueeze(1)
        return isotropic(self.edge_head(edges)[0] * switch) + along * outer


def isotropic(values: Tensor) -> Tensor:
    """Return multiples (R,) of the unit tensor, (R, 3, 3)."""
    return torch.diag_embed(values.unsqueeze(1).expand(-1, 3))


PREFIX = "of_"
"""Before a result's name where modules are named, which may not be called `type` or `class`."""
READOUTS: dict[int, type[nn.Module]] = {0: ScalarReadout, 1: VectorReadout, 2: TensorReadout}
"""By rank."""


class ResultReadouts(nn.Module):
    """Compute all results of a model that are not its energy."""

    def __init__(self, hypers: PETHypers) -> None:
        super().__init__()
        self.by_name = nn.ModuleDict(
            {PREFIX + name: READOUTS[r.rank](hypers) for name, r in hypers.results.items()}
        )

    @torch.jit.unused
    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """Return the parameters of one result's readout."""
        return list(self.by_name[PREFIX + name].parameters())

    def forward(
        self,
        nodes: Tensor,
        edges: Tensor,
        centre: Tensor,
        switch: Tensor,
        vectors: Tensor,
        piece: int,
    ) -> dict[str, Tensor]:
        """Return the results of each atom by name, (N,), (N, 3) or (N, 3, 3), float64.

        Args:
            nodes: (N, D_node).
            edges: (E, D).
            centre: (E,) int64.
            switch: Cutoff function, (E,) float64.
            vectors: Edge vectors, (E, 3) float64.
            piece: Edges evaluated at once.
        """
        found: dict[str, Tensor] = {}
        for key, readout in self.by_name.items():
            value = readout(nodes).to(torch.float64)
            for start in range(0, edges.shape[0], piece):
                end = min(start + piece, edges.shape[0])
                r = vectors[start:end]
                directions = r / torch.linalg.vector_norm(r, dim=1, keepdim=True)
                of_edges = readout.of_edges(  # type: ignore[operator]
                    edges[start:end], switch[start:end], directions
                )
                value = value.index_add(0, centre[start:end], of_edges)
            found[key[3:]] = value  # TorchScript cannot take the length of PREFIX
        return found
