"""Second derivatives: of the energy itself, symmetric, invariant, of any model."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.vibrations import Infrared, VibrationsData
from model_tools import graph_of, make_potential, structures
from reference_pet import reference_energies

from pet_mlip import PETCalculator
from pet_mlip.ase import hessian
from pet_mlip.ase.neighbours import find_graph
from pet_mlip.errors import UserError
from pet_mlip.evaluate.equivariance import random_operations
from pet_mlip.export import load_model, save_model

NAMES = ("ethanol", "self-images", "skewed", "slab", "wire", "CO2", "dimer", "atom")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hessian")
    charged = {"system_conditioning": True, "max_charge": 1, "max_spin_multiplicity": 2}
    for name, dtype, potential in (
        ("exact", "float64", make_potential()),
        ("single", "float32", make_potential()),
        ("plain", "float64", make_potential("none", "residual")),
        ("charged", "float64", make_potential(**charged)),
        ("deep", "float64", make_potential(num_gnn_layers=3)),
    ):
        save_model(folder / f"{name}.pt", potential, dtype=dtype)
    return folder


def exact_hessian(potential, atoms):
    """By automatic differentiation, twice, of the network that is slow and obvious."""
    graph = graph_of(atoms, cutoff=potential.cutoff)
    centre, neighbour = graph.edge_index
    moved = torch.zeros(len(atoms), 3, dtype=torch.float64)

    def energy(moved):
        vectors = graph.edge_vectors + moved[neighbour] - moved[centre]
        return reference_energies(potential, graph._replace(edge_vectors=vectors)).sum()

    found = torch.autograd.functional.hessian(energy, moved)
    return found.reshape(3 * len(atoms), 3 * len(atoms)).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_second_derivative_of_the_energy(files, name):
    atoms = structures()[name]
    for model in ("exact", "single"):
        potential = make_potential()
        if model == "single":  # the weights are rounded, what is done with them is not
            potential = potential.set_dtype(torch.float32).set_dtype(torch.float64)
        expected = exact_hessian(potential, atoms)
        found = PETCalculator(files / f"{model}.pt").get_hessian(atoms)
        size = max(np.abs(expected).max(), 1.0)
        # Weights are folded before they are rounded.
        bound = 2e-6 if model == "exact" else 1e-5
        np.testing.assert_allclose(found, expected, atol=bound * size)
        assert np.array_equal(found, found.T)


def test_energies_of_charged_models_have_their_own(files):
    calculator = PETCalculator(files / "charged.pt")
    atoms = structures()["water"]
    neutral = calculator.get_hessian(atoms)
    atoms.info.update(charge=1, spin_multiplicity=2)
    charged = calculator.get_hessian(atoms)
    assert np.abs(charged - neutral).max() > 1e-3
    atoms.calc = calculator
    np.testing.assert_allclose(charged[4], slope_of_forces(atoms, 4), atol=1e-5)


def slope_of_forces(atoms, row, step=1e-4):
    """Differences of the calculator's own forces."""
    start = atoms.positions.copy()
    forces = []
    for sign in (1, -1):
        atoms.positions = start
        atoms.positions[row // 3, row % 3] += sign * step
        forces.append(atoms.get_forces().ravel())
    atoms.positions = start
    return (forces[1] - forces[0]) / (2 * step)


@pytest.mark.parametrize("mode", ["none", "structure", "quadrature:3"])
def test_models_that_are_not_invariant_have_that_of_their_average(files, mode):
    atoms = structures()["water"]
    atoms.calc = PETCalculator(files / "plain.pt", symmetrization=mode)
    found = atoms.calc.get_hessian(atoms)
    np.testing.assert_allclose(found[2], slope_of_forces(atoms, 2), atol=2e-4)


def test_that_of_a_committee_is_the_mean(files):
    atoms = structures()["water"]
    paths = [files / "exact.pt", files / "single.pt"]
    found = PETCalculator(paths).get_hessian(atoms)
    parts = [PETCalculator(path).get_hessian(atoms) for path in paths]
    np.testing.assert_allclose(found, np.mean(parts, axis=0), atol=1e-6)


def test_translations_cost_nothing_and_operations_turn_it(files):
    calculator = PETCalculator(files / "exact.pt")
    atoms = structures()["ethanol"]
    found = calculator.get_hessian(atoms)
    rows = found.reshape(9, 3, 9, 3)
    assert np.abs(rows.sum(axis=0)).max() < 1e-6 * np.abs(found).max()
    operation = random_operations(1, np.random.default_rng(1))[0]
    turned = atoms.copy()
    turned.positions = atoms.positions @ operation
    whole = np.kron(np.eye(9), operation)
    np.testing.assert_allclose(
        calculator.get_hessian(turned), whole.T @ found @ whole, atol=1e-6 * np.abs(found).max()
    )


def test_rows_of_some_atoms_are_those_of_all(files):
    calculator = PETCalculator(files / "deep.pt")
    atoms = structures()["ethanol"]
    whole = calculator.get_hessian(atoms).reshape(9, 3, 9, 3)
    for indices in ([4, 1], [False, True] * 4 + [False], [-1]):
        places = np.arange(9)[indices]
        part = calculator.get_hessian(atoms, indices)
        size = 3 * len(places)
        expected = whole[places][:, :, places].reshape(size, size)
        np.testing.assert_allclose(part, expected, atol=1e-7 * np.abs(whole).max())


@pytest.mark.parametrize("indices", [[0, 0], [9], [[0]], [0.5], "all"])
def test_indices_that_are_none_are_refused(files, indices):
    with pytest.raises(UserError, match="indices"):
        PETCalculator(files / "exact.pt").get_hessian(structures()["ethanol"], indices)


def test_nothing_and_nonsense(files):
    calculator = PETCalculator(files / "exact.pt")
    assert calculator.get_hessian(structures()["ethanol"], []).shape == (0, 0)
    assert calculator.get_hessian(Atoms()).shape == (0, 0)
    with pytest.raises(UserError, match="Atoms 0 and 1"):
        calculator.get_hessian(Atoms("OO", [(0, 0, 0), (0, 0, 0)]))


def test_what_has_no_second_derivative_is_refused(files):
    atoms = molecule("CH3OH")
    with pytest.raises(UserError, match="random orientation"):
        PETCalculator(files / "plain.pt", symmetrization="random").get_hessian(atoms)
    with pytest.raises(UserError, match="rounded weights"):
        PETCalculator(files / "single.pt", dtype="bf16-mixed").get_hessian(atoms)


def test_the_calculator_is_left_as_it_was(files):
    model = load_model(files / "single.pt")
    atoms = structures()["water"]
    atoms.calc = PETCalculator(model)
    before = atoms.get_forces().copy()
    atoms.calc.get_hessian(structures()["ethanol"])
    assert atoms.calc.results["forces"] is not None
    atoms.calc.reset()
    assert np.array_equal(atoms.get_forces(), before)


def test_ase_finds_vibrations_in_it(files):
    atoms = structures()["water"]
    hessian = PETCalculator(files / "exact.pt").get_hessian(atoms)
    energies = VibrationsData.from_2d(atoms, hessian).get_energies()
    masses = np.repeat(atoms.get_masses(), 3)
    weighted = hessian / np.sqrt(masses[:, None] * masses)
    largest = np.linalg.eigvalsh(weighted)[-1]
    # hbar omega in eV of omega^2 in eV/Å^2/u.
    assert energies[-1].real == pytest.approx(0.0646541 * np.sqrt(largest), rel=1e-4)


def test_ase_finds_infrared_intensities(tmp_path, monkeypatch):
    """Of a model with a dipole."""
    save_model(tmp_path / "model.pt", make_potential(results=["dipole"]), dtype="float64")
    monkeypatch.chdir(tmp_path)
    atoms = structures()["water"]
    atoms.calc = PETCalculator(tmp_path / "model.pt")
    infrared = Infrared(atoms, delta=1e-4)
    infrared.run()
    infrared.read()
    # D/Å/amu^(1/2) squared, of each normal mode.
    expected = np.linalg.norm(slopes_of_modes(atoms, infrared), axis=1) ** 2
    assert expected.max() > 1e-3
    np.testing.assert_allclose(infrared.intensities, expected, rtol=1e-3, atol=1e-6)


def slopes_of_modes(atoms, infrared, step=1e-3):
    """Differences of the dipole along the normal modes, in D/Å/amu^(1/2), (modes, 3)."""
    found = []
    for mode in infrared.modes:  # mass-weighted
        moved = []
        for sign in (1, -1):
            copy = atoms.copy()
            copy.positions += sign * step * (mode * infrared.im).reshape(-1, 3)
            copy.calc = atoms.calc
            moved.append(copy.get_dipole_moment() / units.Debye)
        found.append((moved[0] - moved[1]) / (2 * step))
    return np.array(found)


def test_a_steep_energy_is_refused():
    """Forces that jump where the atoms are, as of attention that goes over from one to another."""
    atoms = structures()["water"]
    graph = find_graph(atoms, 3.0, torch.device("cpu"))
    jump = {"eV/Å": 0.0}

    def forces(copies, gradient):
        n_atoms = len(copies.species)
        pull = copies.edge_vectors - graph.edge_vectors.repeat(n_atoms // 3, 1)
        found = torch.zeros(n_atoms, 3, dtype=torch.float64)
        found = found.index_add(0, copies.edge_index[0], 5.0 * pull + jump["eV/Å"] * pull.sign())
        return SimpleNamespace(forces=found.numpy())

    indices = np.arange(3)
    hessian.compute_hessian(forces, graph, indices)
    jump["eV/Å"] = 1e-6
    with pytest.raises(UserError, match="depends on the displacement"):
        hessian.compute_hessian(forces, graph, indices)
