"""Neighbour lists against a search over all images."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from pet_mlip.data.neighbours import edge_vectors, neighbour_list
from pet_mlip.errors import UserError

PBC = list(itertools.product([False, True], repeat=3))


def all_images(positions, cell, pbc, cutoff):
    """Every edge (i, j, S) closer than the cutoff, by trying all cell shifts that can reach it."""
    vectors = cell[pbc]
    edges = {}
    # |S_k| <= |component of S @ cell along the reciprocal vector| * its length.
    reciprocal = np.linalg.pinv(vectors) if pbc.any() else np.zeros((3, 0))
    reach = cutoff * np.linalg.norm(reciprocal, axis=0)
    for i, j in itertools.product(range(len(positions)), repeat=2):
        difference = positions[j] - positions[i]
        nearest = -difference @ reciprocal
        low, high = np.floor(nearest - reach) - 1, np.ceil(nearest + reach) + 1
        ranges = [np.arange(a, b + 1) for a, b in zip(low, high, strict=True)]
        shifts = list(itertools.product(*ranges))
        grid = np.array(shifts, dtype=float).reshape(len(shifts), len(vectors))
        inside = np.linalg.norm(difference + grid @ vectors, axis=1) < cutoff
        for shift in grid[inside]:
            full = np.zeros(3, dtype=int)
            full[pbc] = shift
            if i != j or full.any():
                edges[(i, j, *map(int, full))] = difference + shift @ vectors
    return edges


def as_dict(edge_index, shifts, vectors):
    keys = [tuple(map(int, key)) for key in np.concatenate([edge_index.T, shifts], axis=1)]
    assert len(set(keys)) == len(keys), "an edge is listed twice"
    return dict(zip(keys, vectors, strict=True))


def assert_correct(positions, cell, pbc, cutoff):
    positions, cell = np.asarray(positions, float), np.asarray(cell, float)
    pbc = np.broadcast_to(np.asarray(pbc, bool), 3)
    edge_index, shifts, vectors = neighbour_list(positions, cell, pbc, cutoff)
    assert edge_index.shape == (2, len(vectors)) and edge_index.dtype == np.int64
    assert shifts.shape == (len(vectors), 3) and shifts.dtype == np.int64
    assert vectors.dtype == np.float64
    assert (np.diff(edge_index[0]) >= 0).all()
    assert not shifts[:, ~pbc].any()
    edges = as_dict(edge_index, shifts, vectors)
    # Rounding may decide either way on pairs exactly at the cutoff.
    expected = all_images(positions, cell, pbc, cutoff + 1e-9)
    assert expected.keys() >= edges.keys()
    assert edges.keys() >= all_images(positions, cell, pbc, cutoff - 1e-9).keys()
    for (i, j, *shift), vector in edges.items():
        np.testing.assert_allclose(vector, expected[(i, j, *shift)], rtol=0, atol=1e-9)
        reverse = edges[(j, i, *(-s for s in shift))]
        assert (reverse == -vector).all()
    return edges


def random_cell(generator, size, skew, left_handed):
    """A cell with known smallest height: triangular, then rotated."""
    cell = np.diag(size) + skew * np.tril(generator.uniform(-1, 1, (3, 3)), -1) * size[:, None]
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    cell = cell @ rotation
    if (np.linalg.det(cell) < 0) != left_handed:
        cell = -cell
    return cell


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pbc=st.sampled_from(PBC),
    n_atoms=st.integers(1, 5),
    size=st.tuples(*[st.floats(1.0, 8.0)] * 3),
    skew=st.sampled_from([0.0, 0.5, 2.0]),
    left_handed=st.booleans(),
    spread=st.sampled_from([0.5, 3.0, 30.0, 1e4]),
    zero=st.booleans(),
    cutoff=st.floats(0.5, 5.0),
)
def test_random_structures(seed, pbc, n_atoms, size, skew, left_handed, spread, zero, cutoff):
    generator = np.random.default_rng(seed)
    cell = random_cell(generator, np.array(size), skew, left_handed)
    if zero:
        cell[~np.array(pbc)] = 0.0
    positions = generator.normal(size=(n_atoms, 3)) * spread
    assert_correct(positions, cell, pbc, cutoff)


@pytest.mark.parametrize("pbc", PBC)
@pytest.mark.parametrize("left_handed", [False, True])
def test_cell_much_smaller_than_the_cutoff(pbc, left_handed):
    generator = np.random.default_rng(0)
    cell = random_cell(generator, np.array([1.1, 1.6, 2.0]), 0.7, left_handed)
    assert_correct([[0.3, 0.1, 0.2]], cell, pbc, 4.5)


def test_cells_with_many_images_are_reduced():
    cell = np.array([[3.0, 0.0, 0.0], [80.0, 2.5, 0.0], [-50.0, 40.0, 3.5]])
    positions = np.array([[0.0, 0.0, 0.0], [1.0, 1.1, 30.0], [-70.0, 4.0, 1.0]])
    for pbc in [(True, True, True), (True, True, False), (False, True, True)]:
        assert_correct(positions, cell, pbc, 3.0)


def test_non_periodic_cell_vectors_are_ignored():
    positions = np.random.default_rng(1).uniform(0, 6, (6, 3))
    periodic = np.array([[4.0, 0.3, 0.0], [0.0, 5.0, 0.2]])
    reference = assert_correct(positions, [*periodic, [0, 0, 30]], (True, True, False), 4.0)
    for third in ([0, 0, 0], [0, 0, -1], [4.0, 0.3, 0.0], [1e-3, 0, 0], [1e5, 0, 1e-9]):
        cell = np.array([*periodic, third])
        assert as_dict(*neighbour_list(positions, cell, (True, True, False), 4.0)).keys() == (
            reference.keys()
        )


@pytest.mark.parametrize("distance", [1e2, 1e4, 1e6, 1e9])
def test_molecules_far_apart_need_little_memory(distance):
    first = molecule("CH3CH2OH").positions
    positions = np.concatenate([first, first + np.array([distance, -2 * distance, distance / 3])])
    edges = neighbour_list(positions, np.zeros((3, 3)), False, 4.0)[2]
    alone = neighbour_list(first, np.zeros((3, 3)), False, 4.0)[2]
    assert len(edges) == 2 * len(alone)


def test_vacuum_in_a_huge_periodic_cell():
    positions = molecule("CH3CH2OH").positions
    alone = neighbour_list(positions, np.zeros((3, 3)), False, 4.0)
    for size in (50.0, 1e3, 1e5):
        boxed = neighbour_list(positions, size * np.eye(3), True, 4.0)
        assert as_dict(*boxed).keys() == as_dict(*alone).keys()


def test_unwrapped_atoms_have_the_same_environments():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    wrapped = neighbour_list(atoms.positions, atoms.cell, True, 4.0)
    moves = np.array([[0, 0, 0], [5, -3, 2], [1000, 0, -7], [-1, -1, -1]])
    moved = neighbour_list(atoms.positions + moves @ atoms.cell.array, atoms.cell, True, 4.0)
    shift = wrapped[1] + moves[wrapped[0][0]] - moves[wrapped[0][1]]
    expected = as_dict(wrapped[0], shift, wrapped[2])
    found = as_dict(*moved)
    assert found.keys() == expected.keys()
    for key, vector in found.items():
        np.testing.assert_allclose(vector, expected[key], atol=1e-10)


def test_cutoff_is_strict():
    positions = [[0, 0, 0], [0, 0, 2.0]]
    assert len(neighbour_list(positions, np.zeros((3, 3)), False, 2.0)[2]) == 0
    assert len(neighbour_list(positions, np.zeros((3, 3)), False, np.nextafter(2.0, 3))[2]) == 2


def test_neighbours_exactly_at_the_cutoff_come_in_pairs():
    """Perfect crystals put whole shells at one distance, up to rounding."""
    atoms = bulk("Cu", "fcc", a=3.6).repeat(3)
    for shell in (1, 2, 3, 4):
        assert_correct(atoms.positions, atoms.cell.array, True, 3.6 * np.sqrt(shell / 2))


def test_no_atom_and_one_atom():
    for n_atoms in (0, 1):
        edge_index, shifts, vectors = neighbour_list(
            np.zeros((n_atoms, 3)), np.zeros((3, 3)), False, 5.0
        )
        assert edge_index.shape == (2, 0) and shifts.shape == (0, 3) and vectors.shape == (0, 3)


def test_overlapping_atoms_are_listed():
    edges = assert_correct(np.zeros((2, 3)), np.zeros((3, 3)), False, 1.0)
    assert len(edges) == 2


def test_vectors_follow_moved_positions():
    atoms = bulk("Si", cubic=True)
    edge_index, shifts, vectors = neighbour_list(atoms.positions, atoms.cell, True, 3.0)
    again = edge_vectors(atoms.positions, atoms.cell.array, edge_index, shifts)
    assert (again == vectors).all()


@pytest.mark.parametrize(
    ("positions", "cell", "pbc", "cutoff", "word"),
    [
        ([[0, 0, np.nan]], np.eye(3), False, 1.0, "position of atom 0"),
        ([[0, 0, 0], [0, np.inf, 0]], np.eye(3), True, 1.0, "position of atom 1"),
        ([[0, 0, 0]], np.full((3, 3), np.nan), True, 1.0, "cell is not finite"),
        ([[0, 0, 0]], np.zeros((3, 3)), True, 1.0, "periodic along a, b, c"),
        ([[0, 0, 0]], [[1, 0, 0], [2, 0, 0], [0, 0, 1]], (1, 1, 0), 1.0, "periodic along a, b"),
        ([[0, 0, 0]], np.eye(3), True, 0.0, "cutoff"),
        ([[0, 0, 0]], np.eye(3), True, np.nan, "cutoff"),
        ([[0, 1e300, 0]], np.eye(3), True, 1.0, "cells away"),
    ],
)
def test_mistakes_are_told(positions, cell, pbc, cutoff, word):
    with pytest.raises(UserError, match=word):
        neighbour_list(positions, cell, pbc, cutoff)
