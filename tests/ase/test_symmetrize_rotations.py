"""Approximate averages over orientations."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from model_files import small_potential
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from pet_mlip import PETCalculator
from pet_mlip.ase.symmetrize.modes import Symmetrization
from pet_mlip.ase.symmetrize.rotations import GROUPS, lebedev_grid, quadrature
from pet_mlip.errors import UserError
from pet_mlip.export import load_model, save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "model.pt"
    save_model(path, small_potential("none", num_radial=0), dtype="float64")
    return load_model(path, device="cpu")


def ethanol(seed=0):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=seed)
    return atoms


def spread(calculator, n=8):
    """Standard deviation of the energy over random rotations, eV per atom."""
    energies = []
    for rotation in Rotation.random(n, rng=1).as_matrix():
        atoms = ethanol()
        atoms.positions = atoms.positions @ rotation
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy())
    return np.std(energies) / len(ethanol())


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5, 14])
def test_polynomials_are_averaged_exactly(degree):
    matrices, weights = quadrature(degree)
    assert weights.sum() == pytest.approx(1)
    assert np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max() < 1e-12
    assert np.linalg.det(matrices) @ weights == pytest.approx(0, abs=1e-12)
    # The average of (a . R b)^n over rotations is |a|^n |b|^n / (n + 1) for even n, else 0.
    a, b = np.array([0.6, -0.8, 0.0]), np.array([0.0, 0.28, 0.96])
    values = np.einsum("i,kij,j->k", a, matrices, b)
    for n in range(degree + 1):
        expected = 1 / (n + 1) if n % 2 == 0 else 0
        assert weights @ values**n == pytest.approx(expected, abs=1e-12)


def wigner_matrices(degree, rotations):
    """Real representation matrices of proper rotations on harmonics of a degree, (K, n, n)."""
    points = np.random.default_rng(0).normal(size=(4 * degree + 6, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)

    def harmonics(x):
        polar, azimuth = np.arccos(np.clip(x[:, 2], -1, 1)), np.arctan2(x[:, 1], x[:, 0])
        complex_ones = [sph_harm_y(degree, m, polar, azimuth) for m in range(degree + 1)]
        return np.stack([y.real for y in complex_ones] + [y.imag for y in complex_ones[1:]], axis=1)

    inverse = np.linalg.pinv(harmonics(points))
    return np.stack([inverse @ harmonics(points @ rotation) for rotation in rotations])


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4, 5, 6, 9])
def test_wigner_functions_are_averaged_exactly(degree):
    """Of every degree up to the given one, of both parities, and of no higher degree for groups."""
    matrices, weights = quadrature(degree)
    signs = np.sign(np.linalg.det(matrices))
    proper = matrices * signs[:, None, None]
    averages = {}
    for angular in range(degree + 2):
        of_rotations = wigner_matrices(angular, proper)
        averages[angular] = [
            np.abs(np.einsum("k,k,kab->ab", weights, parity, of_rotations)).max()
            for parity in (np.ones_like(signs), signs)
        ]
    assert averages[0] == pytest.approx([1, 0], abs=1e-12)
    for angular in range(1, degree + 1):
        assert averages[angular] == pytest.approx([0, 0], abs=1e-12)
    if degree in GROUPS.values():
        assert averages[degree + 1][0] > 0.1


@pytest.mark.parametrize(("degree", "orientations"), [(0, 2), (1, 8), (2, 24), (3, 48), (5, 120)])
def test_small_degrees_take_few_orientations(degree, orientations):
    assert len(quadrature(degree)[1]) == orientations
    assert len(lebedev_grid(max(degree, 1))[1]) * 2 >= orientations


def test_higher_degrees_are_more_invariant(model):
    modes = [Symmetrization("quadrature", degree=degree) for degree in (0, 3, 6)]
    spreads = [spread(PETCalculator(model, symmetrization=mode)) for mode in modes]
    assert spreads[0] > 3 * spreads[1] > 9 * spreads[2] > 0
    assert spread(PETCalculator(model, symmetrization="structure")) < 1e-12


@pytest.mark.parametrize("atoms", [ethanol(), bulk("Si")], ids=["molecule", "crystal"])
def test_forces_and_stress_are_the_gradient(model, atoms):
    atoms.rattle(0.05, seed=3)
    atoms.calc = PETCalculator(model, symmetrization=Symmetrization("quadrature", degree=1))
    numerical = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions[1, 2] += sign * 1e-5
        numerical.append(moved.get_potential_energy())
    expected = -(numerical[0] - numerical[1]) / 2e-5
    assert atoms.get_forces()[1, 2] == pytest.approx(expected, rel=1e-6, abs=1e-8)
    if atoms.pbc.all():
        strain = 1e-5 * np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]]) / 2
        energies = []
        for sign in (1, -1):
            strained = atoms.copy()
            strained.calc = atoms.calc
            strained.set_cell(atoms.cell.array @ (np.eye(3) + sign * strain), scale_atoms=True)
            energies.append(strained.get_potential_energy())
        expected = (energies[0] - energies[1]) / 2e-5 / atoms.get_volume()
        assert atoms.get_stress()[5] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_random_orientations(model):
    atoms = ethanol()
    atoms.calc = PETCalculator(model, symmetrization=Symmetrization("random", seed=4))
    first = atoms.get_potential_energy()
    # Energy and forces of one geometry are of one orientation.
    forces = atoms.get_forces()
    assert atoms.get_potential_energy() == first
    atoms.calc.reset()
    assert abs(atoms.get_potential_energy() - first) > 1e-6
    again = ethanol()
    again.calc = PETCalculator(model, symmetrization=Symmetrization("random", seed=4))
    assert again.get_potential_energy() == first
    assert np.array_equal(again.get_forces(), forces)
    assert np.abs(forces.sum(axis=0)).max() < 1e-10


def test_the_average_of_random_orientations(model):
    atoms = ethanol()
    calculator = PETCalculator(model, symmetrization=Symmetrization("random"))
    energies = np.array(
        [r["energy"] for _ in range(120) for r in calculator.compute_batch([atoms])]
    )
    atoms.calc = PETCalculator(model, symmetrization=Symmetrization("quadrature", degree=8))
    error = energies.mean() - atoms.get_potential_energy()
    assert abs(error) < 4 * energies.std() / len(energies) ** 0.5


@pytest.mark.parametrize("mode", ["quadrature:0", "structure"])
def test_averages_in_inference_mode(model, mode):
    calculator = PETCalculator(model, symmetrization=mode)
    expected = calculator.compute_batch([ethanol()])[0]
    with torch.inference_mode():
        found = calculator.compute_batch([ethanol()])[0]
    assert found["energy"] == expected["energy"]
    assert np.array_equal(found["forces"], expected["forces"])


def test_costs(model):
    atoms = ethanol()
    assert PETCalculator(model).cost(atoms).evaluations == 1
    assert PETCalculator(model, symmetrization="quadrature").cost(atoms).evaluations == 48
    assert PETCalculator(model, symmetrization="random").cost(atoms).relative == 1


def test_degrees_that_no_grid_has():
    with pytest.raises(UserError, match="degree 200 is not between 0 and 131"):
        Symmetrization("quadrature", degree=200)
