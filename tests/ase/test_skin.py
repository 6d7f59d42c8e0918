"""The kept neighbour list is complete, and what it leads to does not depend on its age."""

import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given
from hypothesis import strategies as st
from model_files import morse_model
from model_tools import assert_same_graph

from pet_mlip import PETCalculator
from pet_mlip.ase.neighbours import SkinNeighbours, find_graph
from pet_mlip.data.neighbours import edge_vectors, neighbour_list
from pet_mlip.graph.graph import find_reverse, map_tensors

CUTOFF = 4.0
CPU = torch.device("cpu")


def within(graph):
    return graph.edge_vectors[(graph.edge_vectors**2).sum(axis=1) < CUTOFF**2]


def random_structure(rng, pbc):
    cell = rng.normal(size=(3, 3)) + 4.0 * np.eye(3)[rng.permutation(3)]
    positions = rng.uniform(-1, 2, (5, 3)) @ cell
    return Atoms("H5", positions, cell=cell, pbc=pbc)


@given(
    seed=st.integers(0, 2**32),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    skin=st.sampled_from([0.0, 0.3, 1.5]),
    size=st.sampled_from([0.01, 0.1, 0.5]),
)
def test_edges_are_those_of_a_new_list(seed, pbc, skin, size):
    rng = np.random.default_rng(seed)
    atoms = random_structure(rng, pbc)
    neighbours = SkinNeighbours(CUTOFF, skin, CPU)
    for _ in range(6):
        fresh = find_graph(atoms, CUTOFF, CPU)
        assert np.array_equal(within(neighbours(atoms)), fresh.edge_vectors)
        strain = np.eye(3) + 0.3 * size * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=bool(rng.integers(2)))
        atoms.positions += 0.3 * size * rng.normal(size=(5, 3)) + rng.normal(size=3)


@given(seed=st.integers(0, 2**32), pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_vectors_of_a_kept_list(seed, pbc):
    """They are those that training computes, and reverse edges have bitwise opposite ones."""
    rng = np.random.default_rng(seed)
    atoms = random_structure(rng, pbc)
    neighbours = SkinNeighbours(CUTOFF, 1.5, CPU)
    neighbours(atoms)
    pairs, shifts, _ = neighbour_list(atoms.positions, atoms.cell, atoms.pbc, CUTOFF + 1.5)
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], pairs[1], pairs[0]))
    atoms.positions += 0.05 * rng.normal(size=(5, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.01 * rng.normal(size=(3, 3))))
    kept = neighbours(atoms)
    assert neighbours.n_builds == 1
    expected = edge_vectors(atoms.positions, atoms.cell.array, pairs[:, order], shifts[order])
    assert np.array_equal(kept.edge_vectors, expected)
    assert torch.equal(kept.edge_vectors[kept.reverse], -kept.edge_vectors)
    assert torch.equal(kept.edge_index[:, kept.reverse], kept.edge_index.flip(0))


@given(seed=st.integers(0, 2**32), pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_edges_are_those_of_training_in_order(seed, pbc):
    atoms = random_structure(np.random.default_rng(seed), pbc)
    pairs, shifts, vectors = neighbour_list(atoms.positions, atoms.cell, atoms.pbc, CUTOFF)
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], pairs[1], pairs[0]))
    found = find_graph(atoms, CUTOFF, CPU)
    assert np.array_equal(found.edge_index, pairs[:, order])
    assert np.array_equal(found.edge_vectors, vectors[order])
    reverse = find_reverse(found.edge_index, torch.from_numpy(shifts[order]), len(atoms))
    assert torch.equal(found.reverse, reverse)


def test_edges_do_not_follow_the_users_arrays():
    atoms = bulk("Si", cubic=True)
    neighbours = SkinNeighbours(CUTOFF, 0.5, CPU)
    edges = neighbours(atoms)
    before = map_tensors(edges, torch.clone)
    atoms.positions *= 2.0
    atoms.cell *= 2.0
    assert_same_graph(edges, before)
    atoms.positions *= 0.5
    atoms.cell *= 0.5
    assert_same_graph(neighbours(atoms), before)
    assert neighbours.n_builds == 1


def test_a_list_built_in_inference_mode_serves_outside_it():
    atoms = bulk("Si", cubic=True)
    neighbours = SkinNeighbours(CUTOFF, 0.5, CPU)
    with torch.inference_mode():
        edges = neighbours(atoms)
    assert not any(tensor.is_inference() for tensor in (*edges[:-1], *neighbours(atoms)[:-1]))
    assert neighbours.n_builds == 1


def test_pickles_leave_the_list_behind():
    atoms = bulk("Si", cubic=True) * 3
    neighbours = SkinNeighbours(CUTOFF, 0.5, CPU)
    edges = neighbours(atoms)
    pickled = pickle.dumps(neighbours)
    assert len(pickled) < 1000
    assert_same_graph(pickle.loads(pickled)(atoms), edges)


def test_a_pickle_of_a_list_on_a_gpu_loads_without_one():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    pickled = pickle.dumps(SkinNeighbours(CUTOFF, 0.5, torch.device("cuda")))
    assert len(pickle.loads(pickled)(molecule("H2O")).edge_vectors) == 6


def test_charge_and_spin_are_those_of_the_call():
    atoms = bulk("Si", cubic=True)
    neighbours = SkinNeighbours(CUTOFF, 0.5, CPU)
    for state in ((0, 1), (1, 2), (1, 2), (0, 1)):
        found = neighbours(atoms, state)
        assert found.electronic.tolist() == [list(state)] * 8
        assert_same_graph(found, find_graph(atoms, CUTOFF + 0.5, CPU, state))
    assert neighbours.n_builds == 1


def test_small_moves_keep_the_list():
    atoms = bulk("Si", cubic=True)
    neighbours = SkinNeighbours(CUTOFF, 0.5, CPU)
    for seed in range(5):
        neighbours(atoms)
        atoms.rattle(0.02, seed=seed)
    assert neighbours.n_builds == 1


def test_common_drift_and_small_strain_keep_the_list():
    atoms = bulk("Si", cubic=True)
    neighbours = SkinNeighbours(CUTOFF, 0.5, CPU)
    neighbours(atoms)
    atoms.positions += 100.0
    atoms.set_cell(atoms.cell * 1.02, scale_atoms=True)
    neighbours(atoms)
    assert neighbours.n_builds == 1


@pytest.mark.parametrize("move", [0.26, 3.0])
def test_large_moves_rebuild_the_list(move):
    atoms = molecule("CH3CH2OH")
    neighbours = SkinNeighbours(CUTOFF, 0.5, CPU)
    neighbours(atoms)
    atoms.positions[0] += [0, 0, 1.2 * move]
    neighbours(atoms)
    assert neighbours.n_builds == 2


def test_without_a_skin_every_call_builds():
    neighbours = SkinNeighbours(CUTOFF, 0.0, CPU)
    for _ in range(3):
        neighbours(molecule("H2O"))
    assert neighbours.n_builds == 3


def test_results_are_bitwise_independent_of_the_skin(model_file):
    """What makes a restarted simulation repeat the uninterrupted one."""
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1)
    calculators = [PETCalculator(model_file, skin=skin) for skin in (0.0, 0.4, 1.0)]
    for seed in range(3):
        energies, forces = [], []
        for calculator in calculators:
            atoms.calc = calculator
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
        assert energies[0] == energies[1] == energies[2]
        assert np.array_equal(forces[0], forces[1])
        assert np.array_equal(forces[0], forces[2])
        atoms.rattle(0.02, seed=seed)


def test_one_calculator_for_many_structures():
    """As in a NEB that shares it: the list follows whoever asks."""
    shared = PETCalculator(morse_model())
    images = [bulk("Si", cubic=True) for _ in range(3)]
    for k, image in enumerate(images):
        image.rattle(0.1 * k, seed=k)
        image.calc = shared
    for _ in range(2):
        for image in images:
            alone = image.copy()
            alone.calc = PETCalculator(morse_model())
            assert np.array_equal(image.get_forces(), alone.get_forces())
