"""Geometries in which axes, planes or handedness do not exist: finite, exact, differentiable."""

import ase.build
import pytest
import torch
from ase import Atoms
from ecse_tools import CUTOFF
from reference_pet import reference_energies

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.ecse.training import random_rotations
from pet_mlip.engine.potential import Potential
from pet_mlip.graph.graph import Graph
from pet_mlip.graph.hypers import PETHypers

PET = PETHypers(
    cutoff=CUTOFF,
    d_pet=8,
    d_node=8,
    d_head=8,
    d_feedforward=8,
    num_heads=2,
    num_attention_layers=1,
    num_gnn_layers=2,
)
SQUARE = [(0, 0, 0), (1.9, 0, 0), (-1.9, 0, 0), (0, 1.9, 0), (0, -1.9, 0)]
STRUCTURES = {
    "isolated atom": Atoms("C"),
    "two isolated atoms": Atoms("C2", [(0, 0, 0), (0, 0, 9)]),
    "dimer": Atoms("C2", [(0, 0, 0), (0.3, 0.4, 1.2)]),
    "dimer at the cutoff": Atoms("C2", [(0, 0, 0), (0, 0, CUTOFF - 1e-9)]),
    "linear triatomic": Atoms("C3", [(0, 0, -1.16), (0, 0, 0), (0, 0, 1.16)]),
    "oblique linear triatomic": Atoms("C3", [(-0.3, 0.6, 0.9), (0, 0, 0), (0.4, -0.8, -1.2)]),
    "linear chain": Atoms("C", cell=[1.3, 0, 0], pbc=[True, False, False]),
    "square planar": Atoms("C5", SQUARE),
    "fcc": ase.build.bulk("C", "fcc", a=3.6),
    "bcc": ase.build.bulk("C", "bcc", a=3.0),
    "diamond": ase.build.bulk("C", "diamond", a=3.57),
    "cell smaller than the cutoff": ase.build.bulk("C", "sc", a=1.8),
}

pytestmark = pytest.mark.parametrize("structure", STRUCTURES)


def make_potential() -> Potential:
    torch.manual_seed(0)
    return Potential([6], PET, SymmetrizationHypers()).set_dtype(torch.float64)


def total_energy(potential: Potential, graph: Graph, vectors: torch.Tensor) -> torch.Tensor:
    return potential(graph._replace(edge_vectors=vectors)).sum()


def edges_of(structure: str) -> Graph:
    graph = batch_from_atoms([STRUCTURES[structure]], CUTOFF + 0.3).graph
    return graph._replace(edge_vectors=graph.edge_vectors.requires_grad_(True))


def test_derivatives_are_finite_and_right(structure):
    potential = make_potential()
    graph = edges_of(structure)
    vectors = graph.edge_vectors
    energy = total_energy(potential, graph, vectors)
    assert torch.isfinite(energy)
    if vectors.numel() == 0:
        return
    (gradient,) = torch.autograd.grad(energy, vectors)
    assert torch.isfinite(gradient).all()

    draw = torch.Generator().manual_seed(1)
    direction = torch.randn(vectors.shape, generator=draw, dtype=torch.float64)
    slope = (gradient * direction).sum()
    step = 1e-5
    with torch.no_grad():
        moved = [total_energy(potential, graph, vectors + s * direction) for s in (step, -step)]
    expected = (moved[0] - moved[1]) / (2 * step)
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-7)


def test_second_derivatives_are_finite(structure):
    """Of the model as plain autograd sees it: its own derivatives go as far as the forces."""
    potential = make_potential()
    graph = edges_of(structure)
    vectors = graph.edge_vectors
    energies = reference_energies(potential, graph)
    torch.testing.assert_close(energies, potential(graph), rtol=0, atol=1e-12)
    if vectors.numel() == 0:
        return
    (gradient,) = torch.autograd.grad(energies.sum(), vectors, create_graph=True)
    draw = torch.Generator().manual_seed(1)
    direction = torch.randn(vectors.shape, generator=draw, dtype=torch.float64)
    (second,) = torch.autograd.grad((gradient * direction).sum(), vectors)
    assert torch.isfinite(second).all()


def test_invariant_under_every_operation(structure):
    potential = make_potential()
    graph = batch_from_atoms([STRUCTURES[structure]], CUTOFF).graph
    with torch.no_grad():
        plain = potential(graph)
        for rotation in random_rotations(torch.arange(3)):
            rotated = potential(graph._replace(edge_vectors=graph.edge_vectors @ rotation))
            torch.testing.assert_close(rotated, plain, rtol=0, atol=1e-12)
