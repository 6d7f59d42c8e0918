"""Receptive fields as the exported model asks for them."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from model_files import small_potential

from pet_mlip.ase.symmetrize.fields import Bonds, make_domain, ranges, receptive_fields
from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.export.module import ExportedModel

CUTOFF = 2.0


def bonds_of(atoms, cutoff=CUTOFF):
    graph = batch_from_atoms([atoms], cutoff).graph
    pairs = graph.edge_index.numpy()
    first = np.searchsorted(pairs[0], np.arange(len(atoms) + 1))
    return graph, Bonds(pairs, graph.reverse.numpy(), first)


def test_ranges():
    assert ranges(np.array([5, 0, 7]), np.array([2, 0, 3])).tolist() == [5, 6, 7, 8, 9]


def test_fields_of_a_chain():
    chain = Atoms("H6", [(1.5 * k, 0, 0) for k in range(6)])
    _, bonds = bonds_of(chain)
    fields = receptive_fields(bonds, 2)
    for atom in range(6):
        own = slice(fields.first[atom], fields.first[atom + 1])
        found = dict(zip(fields.atom[own].tolist(), fields.hop[own].tolist(), strict=True))
        assert found == {k: abs(k - atom) for k in range(6) if abs(k - atom) <= 2}


@pytest.mark.parametrize(
    "atoms", [molecule("CH3CH2OH"), bulk("Si"), Atoms("O")], ids=["molecule", "crystal", "atom"]
)
@pytest.mark.parametrize("layers", [1, 2])
def test_energies_from_fields_alone(atoms, layers):
    potential = small_potential("none", num_gnn_layers=layers, cutoff=3.0, cutoff_width=0.5)
    potential.set_dtype(torch.float64)
    graph, bonds = bonds_of(atoms, 3.0)
    depth = potential.pet_hypers.interaction_range
    owners = np.array([*range(len(atoms)), 0])
    domain = make_domain(bonds, receptive_fields(bonds, depth), owners, depth)
    edge = torch.from_numpy(domain.edge)
    vectors = graph.edge_vectors[edge]
    energies, *_ = ExportedModel(potential).evaluate_domain(
        vectors,
        torch.linalg.vector_norm(vectors, dim=1),
        graph.species[torch.from_numpy(domain.atom)],
        torch.from_numpy(domain.pairs),
        torch.from_numpy(domain.reverse),
        domain.atoms_within,
    )
    expected = potential(graph).detach()[torch.from_numpy(owners)]
    torch.testing.assert_close(energies, expected, rtol=0, atol=1e-12)
