"""What must not matter to an atom: padding, other structures, order, whatever is out of reach."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from model_tools import (
    CUTOFF,
    ENSEMBLES,
    FEATURIZERS,
    assert_same,
    graph_of,
    make_potential,
    predict_atoms,
    shifts_of,
    structures,
)

from pet_mlip.graph.graph import Graph, sort_edges

NAMES = list(structures())
POTENTIALS = [(e, f) for e in ENSEMBLES for f in FEATURIZERS]


@pytest.fixture(params=POTENTIALS, ids=["-".join(p) for p in POTENTIALS], scope="module")
def potential(request):
    return make_potential(*request.param)


def crowd():
    """Denser than everything else, so that the padded width grows."""
    return bulk("C", "fcc", a=2.4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_padding_leaves_no_trace(potential, dtype):
    atoms = list(structures().values())
    cast = make_potential(potential.symmetrization.ensemble, potential.pet_hypers.featurizer_type)
    cast.set_dtype(dtype)
    cast.composition.zero_()
    alone = predict_atoms(cast, *atoms)
    crowded = predict_atoms(cast, *atoms, crowd())
    bound = 1e-13 if dtype == torch.float64 else 3e-6
    n_atoms = len(alone.atomic_energies)
    assert_same(crowded.atomic_energies[:n_atoms], alone.atomic_energies, bound)
    assert_same(crowded.forces[:n_atoms], alone.forces, 10 * bound)
    assert_same(crowded.virial[:-1], alone.virial, 100 * bound)


def test_a_batch_is_its_structures(potential):
    atoms = list(structures().values())
    batch = predict_atoms(potential, *atoms)
    singles = [predict_atoms(potential, each) for each in atoms]
    assert_same(batch.energy, torch.cat([s.energy for s in singles]))
    assert_same(batch.atomic_energies, torch.cat([s.atomic_energies for s in singles]))
    assert_same(batch.forces, torch.cat([s.forces for s in singles]))
    assert_same(batch.virial, torch.cat([s.virial for s in singles]), 1e-11)


def test_edges_beyond_the_cutoff_have_no_effect(potential):
    atoms = list(structures().values())
    expected = predict_atoms(potential, *atoms)
    found = predict_atoms(potential, *atoms, cutoff=CUTOFF + 1.0)
    assert torch.equal(found.atomic_energies, expected.atomic_energies)
    assert_same(found.forces, expected.forces, 1e-13)


def test_the_order_of_edges_has_no_effect(potential):
    atoms = list(structures().values())
    graph = graph_of(*atoms)
    order = torch.randperm(graph.edge_index.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = sort_edges(
        graph.species,
        graph.edge_index[:, order],
        graph.edge_vectors[order],
        torch.cat([shifts_of(a) for a in atoms])[order],
        graph.electronic,
        CUTOFF,
    )
    assert not torch.equal(shuffled.edge_vectors, graph.edge_vectors)
    assert_same(potential(shuffled), potential(graph))


@pytest.mark.parametrize("name", ["ethanol", "skewed", "water"])
def test_permutations_of_atoms(potential, name):
    atoms = structures()[name]
    order = np.random.default_rng(1).permutation(len(atoms))
    expected = predict_atoms(potential, atoms)
    found = predict_atoms(potential, atoms[order])
    assert_same(found.atomic_energies, expected.atomic_energies[order])
    assert_same(found.forces, expected.forces[order])


def test_the_cell_an_atom_is_counted_in_has_no_effect(potential):
    atoms = structures()["skewed"]
    expected = predict_atoms(potential, atoms)
    atoms.positions[1] += [2, -3, 5] @ atoms.cell.array
    found = predict_atoms(potential, atoms)
    assert_same(found.atomic_energies, expected.atomic_energies)
    assert_same(found.forces, expected.forces)


def test_a_missing_reverse_out_of_reach_has_no_effect(potential):
    # As in a domain of a parallel MD: the outermost ghosts lack some of their edges.
    reach = potential.pet_hypers.interaction_range
    graph = chain_graph(2 * reach + 4)
    kept = graph.edge_index[0] < 2 * reach + 3
    index, vectors = graph.edge_index[:, kept], graph.edge_vectors[kept]
    no_shifts = torch.zeros(len(vectors), 3, dtype=torch.int64)
    cut = sort_edges(graph.species, index, vectors, no_shifts, graph.electronic, CUTOFF)
    assert (cut.reverse < 0).any()
    assert_same(potential(cut)[:2], potential(graph)[:2], 1e-14)


def chain_graph(n_atoms):
    """A zigzag whose atoms only see the next one on either side."""
    step = np.arange(n_atoms)
    positions = np.stack([2.1 * step, 0.55 * (-1.0) ** step, 0.1 * np.sin(step)], axis=1)
    return graph_of(Atoms(np.resize([6, 8, 1, 14], n_atoms), positions))


def gradient_of_first(potential, graph: Graph, n_atoms):
    """Norm of the gradient of the first atom's energy over the position of each atom."""
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    energy = potential(graph._replace(edge_vectors=vectors))[0]
    (gradient,) = torch.autograd.grad(energy, vectors)
    found = torch.zeros(n_atoms, 3, dtype=torch.float64)
    found.index_add_(0, graph.edge_index[1], gradient)
    found.index_add_(0, graph.edge_index[0], -gradient)
    return found.norm(dim=1)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("featurizer", FEATURIZERS)
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_interaction_range(ensemble, featurizer, layers):
    potential = make_potential(ensemble, featurizer, num_gnn_layers=layers)
    reach = potential.pet_hypers.interaction_range
    assert reach == layers + (featurizer == "feedforward")
    n_atoms = reach + 4
    gradient = gradient_of_first(potential, chain_graph(n_atoms), n_atoms)
    assert (gradient[: reach + 1] > 1e-9).all()
    assert (gradient[reach + 1 :] == 0).all()
