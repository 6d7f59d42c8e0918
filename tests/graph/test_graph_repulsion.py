"""Repulsion of nuclei."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii
from hypothesis import given
from hypothesis import strategies as st
from model_tools import SPECIES, assert_same, graph_of, make_potential, predict_atoms

from pet_mlip.graph.repulsion import COULOMB, Repulsion

Index = st.integers(0, len(SPECIES) - 1)


def pair_energy(first, second, distance):
    index = torch.tensor([first]), torch.tensor([second])
    return 2.0 * Repulsion(SPECIES)(*index, distance.reshape(1)).squeeze()


@given(first=Index, second=Index)
def test_smooth_to_the_third_order_at_the_end(first, second):
    end = sum(covalent_radii[SPECIES[i]] for i in (first, second))
    near = torch.tensor(end - 1e-3, dtype=torch.float64, requires_grad=True)
    energy = pair_energy(first, second, near)
    (slope,) = torch.autograd.grad(energy, near, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, near)
    charge = COULOMB * SPECIES[first] * SPECIES[second]
    assert abs(energy) < 1e-7 * charge
    assert abs(slope) < 1e-4 * charge
    assert abs(curvature) < 0.1 * charge
    assert pair_energy(first, second, torch.tensor(end + 1e-9, dtype=torch.float64)) == 0


@given(first=Index, second=Index, distance=st.floats(0.2, 0.5))
def test_symmetric_and_repulsive(first, second, distance):
    r = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
    energy = pair_energy(first, second, r)
    # Charges are rounded to single precision, as in metatrain.
    assert float(energy) == pytest.approx(float(pair_energy(second, first, r)), rel=1e-6)
    assert torch.autograd.grad(energy, r)[0] < 0
    assert energy > 0


def test_bare_nuclei_at_vanishing_distance():
    r = torch.tensor(1e-5, dtype=torch.float64)
    expected = COULOMB * SPECIES[3] * SPECIES[2] / 1e-5
    assert float(pair_energy(3, 2, r)) == pytest.approx(expected, rel=2e-3)


def test_added_to_the_energy_also_beyond_the_cutoff_of_the_network():
    # Two Si atoms repel each other up to 2.22 Å, but the network sees 1.5 Å only.
    plain = make_potential(cutoff=1.5, cutoff_width=0.3)
    with_repulsion = make_potential(cutoff=1.5, cutoff_width=0.3, zbl=True)
    with_repulsion.pet.load_state_dict(plain.pet.state_dict())
    assert with_repulsion.cutoff == pytest.approx(2.22)
    dimer = Atoms("Si2", [(0, 0, 0), (0, 0, 2.0)])
    alone = predict_atoms(plain, dimer, cutoff=with_repulsion.cutoff)
    found = predict_atoms(with_repulsion, dimer, cutoff=with_repulsion.cutoff)
    expected = pair_energy(3, 3, torch.tensor(2.0, dtype=torch.float64))
    assert_same(found.energy[0] - alone.energy[0], expected, 1e-12)
    assert float(expected) > 0.01


def test_forces_and_stress():
    potential = make_potential(zbl=True)
    atoms = bulk("SiC", "zincblende", a=3.9)
    atoms.rattle(0.1, seed=1)
    graph = graph_of(atoms)
    graph = graph._replace(edge_vectors=graph.edge_vectors.requires_grad_(True))
    assert potential.preparation(graph).repulsion.detach().abs().min() > 0.01
    forces = predict_atoms(potential, atoms).forces
    for atom, axis in [(0, 0), (1, 2)]:
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * 1e-5
            energies.append(predict_atoms(potential, moved).energy[0])
        assert_same(forces[atom, axis], -(energies[0] - energies[1]) / 2e-5, 1e-7)
