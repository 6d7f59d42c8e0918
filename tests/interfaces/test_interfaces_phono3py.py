"""Force constants of phonopy and phono3py beside our own derivatives of the same supercell."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from model_files import small_potential
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from pet_mlip import PETCalculator
from pet_mlip.export import load_model, save_model

REPEATS = np.diag([2, 2, 2])


def to_ase(cell):
    return Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)


@pytest.fixture
def calculator(tmp_path):
    save_model(tmp_path / "model.pt", small_potential())
    return PETCalculator(load_model(tmp_path / "model.pt", dtype="float64"))


@pytest.fixture
def diamond():
    atoms = bulk("C", "diamond", a=3.57)
    return PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
    )


def forces_of(calculator, supercells):
    found = calculator.compute_batch([to_ase(cell) for cell in supercells])
    return np.array([one["forces"] for one in found])


def test_second_order_force_constants_are_the_hessian(calculator, diamond):
    phonon = Phonopy(diamond, REPEATS)
    phonon.generate_displacements(distance=1e-3, is_plusminus=True)
    phonon.forces = forces_of(calculator, phonon.supercells_with_displacements)
    phonon.produce_force_constants()
    supercell = to_ase(phonon.supercell)
    n = len(supercell)
    hessian = calculator.get_hessian(supercell).reshape(n, 3, n, 3).transpose(0, 2, 1, 3)
    assert np.abs(phonon.force_constants - hessian).max() < 1e-4 * np.abs(hessian).max()


def test_third_order_force_constants_are_the_derivative_of_the_hessian(calculator, diamond):
    phono3py = pytest.importorskip("phono3py")
    phonon = phono3py.Phono3py(diamond, supercell_matrix=REPEATS, log_level=0)
    phonon.generate_displacements(distance=0.01, is_plusminus=True)
    phonon.forces = forces_of(calculator, phonon.supercells_with_displacements)
    phonon.produce_fc3()
    supercell = to_ase(phonon.supercell)
    n, step = len(supercell), 1e-3
    hessians = []
    for sign in (1, -1):
        moved = supercell.copy()
        moved.positions[0, 0] += sign * step
        hessians.append(calculator.get_hessian(moved))
    third = (hessians[0] - hessians[1]) / (2 * step)
    third = third.reshape(n, 3, n, 3).transpose(0, 2, 1, 3)
    found = phonon.fc3[0][:, :, 0]
    assert np.abs(found - third).max() < 2e-2 * np.abs(third).max()
