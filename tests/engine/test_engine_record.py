"""What autograd sees of a scripted potential is right twice, with any weights."""

import pytest
import torch
from model_tools import (
    ENSEMBLES,
    FEATURIZERS,
    assert_same,
    dense_crystal,
    edges_of,
    graph_of,
    make_potential,
    structures,
)
from torch import Tensor, nn

from pet_mlip.engine.potential import Potential
from pet_mlip.export.module import ExportedModel
from pet_mlip.graph.graph import Graph


class Recorded(nn.Module):
    """The potential's atomic energies, for TorchScript."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(self, graph: Graph) -> Tensor:
        return self.potential.record(graph, None, False).energies


@pytest.fixture(scope="module", params=[(f, e) for f in FEATURIZERS for e in ENSEMBLES], ids=str)
def pair(request):
    """A potential that records, and the same with its written-out derivative."""
    featurizer, ensemble = request.param
    adaptive = 6.0 if ensemble == "none" else None
    potential = make_potential(ensemble, featurizer, zbl=True, num_neighbors_adaptive=adaptive)
    return torch.jit.script(Recorded(potential)), torch.jit.script(ExportedModel(potential))


@pytest.mark.parametrize("name", ["ethanol", "skewed", "wire", "CO2", "atom", "dense"])
def test_two_derivatives(pair, name):
    recorded, exported = pair
    graph = graph_of(dense_crystal() if name == "dense" else structures()[name])
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(len(graph.species), generator=draw, dtype=torch.float64)
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    with torch.jit.optimized_execution(False):
        energies = recorded(graph._replace(edge_vectors=vectors))
        found, expected, *_ = exported(**edges_of(graph), weights=weights)
    assert_same(energies.detach(), found, 1e-12)
    if len(vectors) == 0:
        return
    (gradient,) = torch.autograd.grad((weights * energies).sum(), vectors, create_graph=True)
    assert_same(gradient.detach(), expected, 1e-11)
    direction = torch.randn(vectors.shape, generator=draw, dtype=torch.float64)
    (along,) = torch.autograd.grad((gradient * direction).sum(), vectors)
    step, sides = 1e-6, []
    with torch.jit.optimized_execution(False):
        for sign in (1, -1):
            moved = graph._replace(edge_vectors=graph.edge_vectors + sign * step * direction)
            sides.append(exported(**edges_of(moved), weights=weights)[1])
    difference = (sides[0] - sides[1]) / (2 * step)
    assert_same(along, difference, 1e-7 * max(1.0, float(along.abs().max())))
