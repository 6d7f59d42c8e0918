"""Adaptive cutoffs: every atom its own radius."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from domain_tools import domain_of, whole_system
from hypothesis import given
from hypothesis import strategies as st
from model_tools import assert_same, graph_of, make_potential, predict_atoms

from pet_mlip.export.module import ExportedModel
from pet_mlip.graph.adaptive import average_cutoffs, count_excess, solve_cutoffs
from pet_mlip.graph.cutoff import bump_switch

CUTOFF = 4.5
METHODS = ["exact", "solver", "grid"]


def adaptive_potential(method="exact", count=4.0, **hypers):
    return make_potential(
        cutoff=3.2, num_neighbors_adaptive=count, adaptive_cutoff_method=method, **hypers
    )


def edges(atoms, cutoff=CUTOFF):
    graph = graph_of(atoms, cutoff=cutoff)
    return torch.linalg.vector_norm(graph.edge_vectors, dim=1), graph.edge_index[0]


def rattled(atoms, seed=0):
    atoms.rattle(0.1, seed=seed)
    return atoms


@given(seed=st.integers(0, 10**6), count=st.floats(1, 30), width=st.sampled_from([0.5, 1.0]))
def test_each_atom_has_the_wanted_count(seed, count, width):
    atoms = rattled(bulk("Si", cubic=True), seed)
    distance, centre = edges(atoms)
    radius = solve_cutoffs(distance, centre, len(atoms), count, CUTOFF, width, True)
    excess, _ = count_excess(radius, distance, centre, count, CUTOFF, width)
    clamped = radius <= CUTOFF / 16
    assert excess[~clamped].abs().max() < 1e-10
    switch = bump_switch(distance, radius[centre], width)
    counted = torch.zeros_like(radius).index_add(0, centre, switch)
    assert_same(counted[~clamped], (count * (1 - (radius / CUTOFF) ** 3))[~clamped], 1e-9)


def test_ten_steps_agree_where_they_converge():
    atoms = rattled(bulk("Si", cubic=True) * (2, 2, 2))
    distance, centre = edges(atoms)
    found = [
        solve_cutoffs(distance, centre, len(atoms), 10.0, CUTOFF, 1.0, e) for e in (True, False)
    ]
    assert ((found[0] - found[1]).abs() < 1e-10).double().mean() > 0.95


def test_slope_of_the_count():
    atoms = rattled(molecule("CH3CH2OH"))
    distance, centre = edges(atoms)
    radius = torch.linspace(1.0, 4.0, len(atoms), dtype=torch.float64)
    args = (distance, centre, 6.0, CUTOFF, 1.0)
    _, slope = count_excess(radius, *args)
    upper, lower = count_excess(radius + 1e-6, *args)[0], count_excess(radius - 1e-6, *args)[0]
    assert_same(slope, (upper - lower) / 2e-6, 1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_atoms_without_neighbours(method):
    distance = torch.zeros(0, dtype=torch.float64)
    centre = torch.zeros(0, dtype=torch.int64)
    if method == "grid":
        radius = average_cutoffs(distance, centre, 2, 5.0, 0.5, CUTOFF, 0.5)
        assert (radius > 0.8 * CUTOFF).all()
    else:
        radius = solve_cutoffs(distance, centre, 2, 5.0, CUTOFF, 0.5, method == "exact")
        assert_same(radius, torch.full_like(radius, CUTOFF), 1e-12)
    assert torch.isfinite(predict_atoms(adaptive_potential(method), Atoms("O")).energy).all()


@pytest.mark.parametrize("ensemble", ["none", "closest_pairs"])
@pytest.mark.parametrize("method", METHODS)
def test_forces_are_the_gradient(method, ensemble):
    potential = adaptive_potential(method, ensemble=ensemble)
    atoms = rattled(molecule("CH3CH2OH"))
    forces = predict_atoms(potential, atoms).forces.numpy()
    for atom, axis in [(0, 0), (2, 1), (5, 2), (8, 0)]:
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * 1e-5
            energies.append(float(predict_atoms(potential, moved).energy))
        expected = -(energies[0] - energies[1]) / 2e-5
        assert abs(forces[atom, axis] - expected) < 1e-6 * max(1, np.abs(forces).max())


def test_invariance():
    potential = adaptive_potential()
    atoms = rattled(molecule("CH3CH2OH"))
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = atoms.copy()
    turned.positions = atoms.positions @ rotation
    here, there = predict_atoms(potential, atoms), predict_atoms(potential, turned)
    assert_same(there.energy, here.energy, 1e-11)
    assert_same(there.forces, here.forces @ torch.tensor(rotation), 1e-10)


@pytest.mark.parametrize("method", ["exact", "grid"])
@pytest.mark.parametrize("ensemble", ["none", "closest_pairs"])
def test_no_jump_where_neighbours_come_and_go(method, ensemble):
    potential = adaptive_potential(method, count=3.0, ensemble=ensemble)
    base = rattled(molecule("CH3CH2OH"))
    direction = np.array([1.0, 0.4, 0.3])
    step = 0.005
    place = base.positions[1] + 1.2 * direction
    path = [base + Atoms("O", [place + k * step * direction]) for k in range(501)]
    prediction = predict_atoms(potential, *path)
    moved = prediction.forces.reshape(len(path), len(base) + 1, 3)[:, -1]
    slope = -moved.numpy() @ direction
    # The trapezoid rule integrates the force to the energy, unless either jumps.
    errors = np.diff(prediction.energy.numpy()) - 0.5 * step * (slope[1:] + slope[:-1])
    assert np.abs(slope).max() > 0.1
    assert np.abs(errors).max() < 1e-4 * np.abs(slope).max()


@pytest.mark.parametrize("chunk_size", [1, 40])
@pytest.mark.parametrize("method", METHODS)
def test_chunks(method, chunk_size):
    potential = adaptive_potential(method, zbl=True)
    graph = graph_of(rattled(molecule("CH3CH2OH")), rattled(bulk("Si", cubic=True)))
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    weights = torch.linspace(-1, 1, len(graph.species), dtype=torch.float64)
    found = []
    for size in (0, chunk_size):
        inputs = potential.preparation(graph._replace(edge_vectors=vectors))
        found.append(potential.evaluate([vectors], inputs, weights, True, size))
    assert_same(found[1][0], found[0][0], 1e-12)
    assert_same(found[1][1][0], found[0][1][0], 1e-11)
    assert (found[0][2] == found[1][2]).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("featurizer", ["residual", "feedforward"])
def test_a_domain_needs_one_cutoff_more(method, featurizer):
    potential = adaptive_potential(method, num_gnn_layers=1, featurizer=featurizer)
    reach = potential.pet_hypers.interaction_range
    assert reach == potential.pet_hypers.message_range + 1
    atoms = rattled(bulk("SiO", "zincblende", a=4.8) * (6, 2, 2), 1)
    drive = ExportedModel(potential).drive
    whole = whole_system(atoms, 3.5)
    energies = drive(whole.points, whole.ends, *whole.lists)[0]
    own = [0, 1, 2]
    enough = domain_of(atoms, own, 3.5, reach, reach)
    assert_same(drive(enough.points, enough.ends, *enough.lists)[0], energies[own], 1e-12)
    # With a shell less, cutoffs of the outer atoms are wrong.
    less = domain_of(atoms, own, 3.5, reach, reach - 1)
    assert (drive(less.points, less.ends, *less.lists)[0] - energies[own]).abs().max() > 1e-7
