"""vesin, which a GPU would use, finds on the CPU what matscipy finds."""

import itertools
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from model_tools import assert_same_graph

from benchmarks.peers.structures import water
from pet_mlip.ase import finders
from pet_mlip.ase.neighbours import find_graph
from pet_mlip.data.neighbours import prepare_search

CPU = torch.device("cpu")
PBC = list(itertools.product([False, True], repeat=3))


def assert_same(atoms, cutoff):
    """The list is the same to the bit, whoever finds it; returns the number of edges."""
    pytest.importorskip("vesin_torch")
    by_matscipy = find_graph(atoms, cutoff, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finders, "suits_vesin", lambda *_: True)
        patch.setattr(finders, "candidate_edges", None)  # no way back to matscipy
        by_vesin = find_graph(atoms, cutoff, CPU)
    assert_same_graph(by_vesin, by_matscipy)
    return len(by_vesin.edge_vectors)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pbc=st.sampled_from(PBC),
    n_atoms=st.integers(1, 20),
    size=st.tuples(*[st.floats(1.0, 8.0)] * 3),
    skew=st.sampled_from([0.0, 0.5, 2.0, 20.0]),
    left_handed=st.booleans(),
    spread=st.sampled_from([0.5, 3.0, 30.0, 1e4]),
    zero=st.booleans(),
    on_a_grid=st.booleans(),
    cutoff=st.floats(0.5, 5.0),
)
def test_random_structures(
    seed, pbc, n_atoms, size, skew, left_handed, spread, zero, on_a_grid, cutoff
):
    generator = np.random.default_rng(seed)
    cell = np.diag(size) + skew * np.tril(generator.uniform(-1, 1, (3, 3)), -1) * size
    cell = cell @ np.linalg.qr(generator.normal(size=(3, 3)))[0]
    cell *= -1 if (np.linalg.det(cell) < 0) != left_handed else 1
    if zero:
        cell[~np.array(pbc)] = 0.0
    positions = generator.normal(size=(n_atoms, 3)) * spread
    if on_a_grid:
        positions = np.unique(positions.round(), axis=0)
    numbers = np.ones(len(positions))
    assert_same(Atoms(numbers=numbers, positions=positions, cell=cell, pbc=pbc), cutoff)


@pytest.mark.parametrize("pbc", PBC)
@pytest.mark.parametrize("sizes", [(200, 150, 4), (100, 100, 100), (6, 5000, 12)])
def test_wide_vacuum(pbc, sizes):
    atoms = molecule("CH3CH2OH", cell=sizes, pbc=pbc)
    atoms.center()
    far = atoms.copy()
    far.positions += [0.4 * size for size in sizes]
    assert assert_same(atoms + far, 2.5) > 60


@pytest.mark.parametrize("pbc", PBC)
def test_self_images(pbc):
    atoms = Atoms(
        "H", [[0.3, 0.1, 0.2]], cell=[[1.1, 0, 0], [0.7, 1.6, 0], [0.2, -0.9, 2]], pbc=pbc
    )
    assert (assert_same(atoms, 4.5) > 0) == any(pbc)


@pytest.mark.parametrize(
    ("atoms", "cutoff"),
    [
        (bulk("Cu", "fcc", a=3.6).repeat(6), 3.6 * np.sqrt(2)),
        (fcc111("Al", (6, 6, 4), vacuum=10.0), 6.0),
        (water(216), 5.5),
    ],
    ids=["exactly at the cutoff", "slab", "water"],
)
def test_many_atoms(atoms, cutoff):
    assert assert_same(atoms, cutoff) > 20 * len(atoms) / 2
    atoms.positions += np.random.default_rng(0).integers(-9, 9, (len(atoms), 3)) @ atoms.cell.array
    assert_same(atoms, cutoff)


def test_who_is_asked(monkeypatch):
    def suits(atoms, device):
        search = prepare_search(atoms.positions, atoms.cell, atoms.pbc, 5.0)
        return finders.suits_vesin(search, torch.device(device))

    monkeypatch.setattr(finders, "find_spec", lambda name: name == "vesin_torch")
    assert suits(water(216), "cuda") and suits(water(216), "cuda:1")
    assert not suits(water(216), "cpu")
    assert not suits(water(21), "cuda")
    wide = water(216)
    wide.cell[:] = 1e4 * np.eye(3)
    assert not suits(wide, "cuda")
    wide.pbc = False
    assert suits(wide, "cuda")
    monkeypatch.setattr(finders, "find_spec", lambda name: None)
    assert not suits(water(216), "cuda")


def test_atoms_at_the_same_place_are_neighbours(monkeypatch):
    """vesin leaves such pairs out on a GPU: they are not its business."""
    pytest.importorskip("vesin_torch")
    atoms = water(21)
    atoms.positions[7] = atoms.positions[3] + atoms.cell[1]
    monkeypatch.setattr(finders, "suits_vesin", lambda *_: True)
    with pytest.warns(RuntimeWarning, match="at the same place"):
        graph = find_graph(atoms, 3.0, CPU)
    assert (graph.edge_vectors.norm(dim=1) < 1e-9).sum() == 2


def test_where_vesin_fails_matscipy_helps_out(monkeypatch):
    atoms = water(21)
    expected = find_graph(atoms, 4.0, CPU)
    monkeypatch.setitem(sys.modules, "vesin_torch", None)
    monkeypatch.setattr(finders, "suits_vesin", lambda *_: True)
    with pytest.warns(RuntimeWarning, match="they are found on the CPU"):
        found = find_graph(atoms, 4.0, CPU)
    assert_same_graph(found, expected)
