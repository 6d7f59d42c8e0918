"""Random backbones with outputs of every rank, and graphs of single environments."""

from collections.abc import Mapping

import torch
from ecse_tools import CUTOFF, WIDTH
from torch import Tensor, nn

from pet_mlip.ecse import Symmetrized
from pet_mlip.graph.graph import Graph, electronic_state

RANKS = {"energy": 0, "dipole": 1, "polarizability": 2}
SPECIES = torch.tensor([1, 6, 8])


class RandomNet(nn.Module):
    """Smooth and far from covariant; tensors have all nine components, two channels of each."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=draw, dtype=torch.float64))

        self.species, self.inner, self.outer = normal(9, 5), normal(14, 12), normal(17, 26)

    def forward(
        self, vectors: Tensor, distance: Tensor, switch: Tensor, species: Tensor, centre: Tensor
    ) -> dict[str, Tensor]:
        atom = self.species[centre]
        neighbours = [self.species[species], atom.unsqueeze(1).expand(*species.shape, 5)]
        inputs = torch.cat([0.5 * vectors, distance.unsqueeze(2), *neighbours], dim=2)
        features = torch.tanh(0.5 * inputs @ self.inner)
        pooled = (features * switch.unsqueeze(2)).sum(dim=1)
        out = torch.sin(0.3 * torch.cat([pooled, atom], dim=1) @ self.outer)
        return {
            "energy": out[:, :2],
            "dipole": out[:, 2:8].reshape(-1, 2, 3),
            "polarizability": out[:, 8:].reshape(-1, 2, 3, 3),
        }


def symmetrized_net() -> Symmetrized:
    """The random network in the frames of the ensemble."""
    return Symmetrized(RandomNet(), CUTOFF, RANKS, cutoff_width=WIDTH).eval()


def graph_of(vectors: list[Tensor]) -> Graph:
    """Atoms with neighbours at ``vectors`` (m, 3) first, then the neighbours, without edges."""
    count = torch.tensor([len(v) for v in vectors])
    centre = torch.repeat_interleave(torch.arange(len(vectors)), count)
    neighbour = torch.cat([torch.arange(n) for n in count])
    n_edges = len(centre)
    species = torch.cat([SPECIES[torch.arange(len(vectors)) % 1], SPECIES[neighbour % 3]])
    places = len(vectors) + torch.arange(n_edges)
    return Graph(
        species,
        torch.stack([centre, places]),
        torch.cat(vectors),
        torch.full((n_edges,), -1),
        electronic_state(len(species)),
        [len(species)],
    )


def outputs_of(model: Symmetrized, vectors: list[Tensor]) -> dict[str, Tensor]:
    """Outputs of the atoms with neighbours."""
    return {name: values[: len(vectors)] for name, values in model(graph_of(vectors)).items()}


def turned(outputs: Mapping[str, Tensor], rotation: Tensor) -> dict[str, Tensor]:
    """The outputs of environments ``vectors @ rotation``, if they are covariant."""
    return {
        "energy": outputs["energy"],
        "dipole": outputs["dipole"] @ rotation,
        "polarizability": rotation.T @ outputs["polarizability"] @ rotation,
    }
