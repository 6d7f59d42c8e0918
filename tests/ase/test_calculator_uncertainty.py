"""Uncertainties as ASE asks for them."""

import copy
import logging
import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from hypothesis import given, settings
from hypothesis import strategies as st
from model_tools import make_potential
from scipy.spatial.transform import Rotation
from uncertainty_tools import with_uncertainty

from pet_mlip import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.export import save_model

NAMES = ["energy_uncertainty", "energies_uncertainty", "forces_uncertainty"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.pt"
    save_model(path, with_uncertainty(make_potential()), dtype="float64")
    return path


@pytest.fixture(scope="module")
def calculator(path):
    return PETCalculator(path, device="cpu")


def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    return atoms


def uncertainties(calculator, atoms):
    (found,) = calculator.compute_batch([atoms], NAMES)
    return found


def test_only_on_request(calculator):
    atoms = ethanol()
    calculator.calculate(atoms)
    assert not set(NAMES) & set(calculator.results)
    energy, forces = calculator.results["energy"], calculator.results["forces"]
    of_energy = calculator.get_property("energy_uncertainty", atoms)
    assert "forces_uncertainty" not in calculator.results
    of_forces = calculator.get_property("forces_uncertainty", atoms)
    assert of_energy > 0 and of_forces.shape == (9,) and np.all(of_forces > 0)
    assert calculator.results["energies_uncertainty"].shape == (9,)
    np.testing.assert_allclose(calculator.get_property("forces", atoms), forces, atol=1e-13)
    assert calculator.results["energy"] == pytest.approx(energy, abs=1e-12)


@pytest.mark.parametrize(
    ("wanted", "names"), [(True, NAMES), ("forces", NAMES), ("energy", NAMES[:2])]
)
def test_in_every_call(path, wanted, names):
    atoms = ethanol()
    atoms.calc = PETCalculator(path, device="cpu", uncertainty=wanted)
    atoms.get_potential_energy()
    assert [name for name in NAMES if name in atoms.calc.results] == names


def test_batches_have_those_of_each_structure(calculator):
    structures = [ethanol(), bulk("Si", cubic=True), Atoms("O"), Atoms("CO", [[0] * 3, [0, 0, 1]])]
    for found, atoms in zip(calculator.compute_batch(structures, NAMES), structures, strict=True):
        for name in NAMES:
            expected = calculator.get_property(name, atoms)
            np.testing.assert_allclose(found[name], expected, rtol=1e-10, atol=1e-13)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), mirror=st.booleans())
def test_invariant_under_rotations_reflections_translations_permutations(path, seed, mirror):
    calculator = PETCalculator(path, device="cpu")
    rng = np.random.default_rng(seed)
    matrix = Rotation.random(rng=rng).as_matrix() * (-1 if mirror else 1)
    order = rng.permutation(9)
    atoms, moved = ethanol(), ethanol()
    moved.positions = moved.positions @ matrix.T + rng.normal(size=3)
    moved = moved[order]
    before, after = uncertainties(calculator, atoms), uncertainties(calculator, moved)
    assert after["energy_uncertainty"] == pytest.approx(before["energy_uncertainty"], rel=1e-9)
    for name in NAMES[1:]:
        np.testing.assert_allclose(after[name], before[name][order], rtol=1e-9, atol=1e-12)


def test_variances_of_copies_are_those_of_one_and_the_same_mistake(calculator):
    """A model that is wrong about a molecule is equally wrong about its copies: sigma adds up."""
    one = ethanol()
    two = one.copy()
    two.positions += (50.0, 0.0, 0.0)
    first, both = uncertainties(calculator, one), uncertainties(calculator, one + two)
    assert both["energy_uncertainty"] == pytest.approx(2 * first["energy_uncertainty"], rel=1e-10)
    np.testing.assert_allclose(
        both["forces_uncertainty"], np.tile(first["forces_uncertainty"], 2), rtol=1e-9
    )


def test_copies_and_pickles_know_them(path):
    calculator = PETCalculator(path, device="cpu", uncertainty=True)
    atoms = ethanol()
    expected = calculator.get_property("forces_uncertainty", atoms)
    for other in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        found = other.get_property("forces_uncertainty", atoms)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_warning_names_the_atom(path, caplog):
    atoms = ethanol()
    quiet = PETCalculator(path, device="cpu", uncertainty=True)
    values = quiet.get_property("forces_uncertainty", atoms)
    k = int(np.argmax(values))
    with caplog.at_level(logging.WARNING, "pet_mlip"):
        PETCalculator(path, uncertainty="forces", warn_above=1.1 * values[k]).calculate(atoms)
        assert not caplog.messages
        PETCalculator(path, uncertainty="forces", warn_above=0.9 * values[k]).calculate(atoms)
    assert f"The force of atom {k} is uncertain by" in caplog.messages[0]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "pet_mlip"):
        PETCalculator(path, uncertainty="energy", warn_above=0.0).calculate(atoms)
    assert "The energy of atom" in caplog.messages[0]


def test_coarse_precisions_round_them_away(path):
    with pytest.raises(UserError, match="bf16-mixed rounds away"):
        PETCalculator(path, dtype="bf16-mixed", uncertainty=True)
    with pytest.raises(PropertyNotImplementedError):
        PETCalculator(path, dtype="bf16-mixed").get_property("energy_uncertainty", ethanol())


def test_mistakes_are_refused(path, tmp_path):
    with pytest.raises(UserError, match="uncertainty is"):
        PETCalculator(path, uncertainty="all")
    with pytest.raises(UserError, match="warn_above needs"):
        PETCalculator(path, warn_above=0.1)
    with pytest.raises(UserError, match="warn_above is"):
        PETCalculator(path, uncertainty=True, warn_above=-1.0)


def test_models_without_any_refuse(tmp_path):
    save_model(tmp_path / "model.pt", make_potential(), dtype="float64")
    with pytest.raises(UserError, match="does not know its uncertainty"):
        PETCalculator(tmp_path / "model.pt", uncertainty=True)
    calculator = PETCalculator(tmp_path / "model.pt")
    with pytest.raises(PropertyNotImplementedError):
        calculator.get_property("energy_uncertainty", ethanol())
    with pytest.raises(PropertyNotImplementedError):
        calculator.compute_batch([ethanol()], ["forces_uncertainty"])


def test_averages_over_orientations_have_none(tmp_path):
    save_model(tmp_path / "model.pt", with_uncertainty(make_potential("none")), dtype="float64")
    with pytest.raises(UserError, match="averaged over orientations"):
        PETCalculator(tmp_path / "model.pt", symmetrization="structure", uncertainty=True)


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Models that differ in their weights and in their cutoffs."""
    folder = tmp_path_factory.mktemp("committee")
    paths = []
    for k, cutoff in enumerate((3.0, 3.4, 2.8)):
        potential = make_potential(cutoff=cutoff)
        for parameter in potential.pet.parameters():
            parameter.mul_(1.0 + 0.03 * k)
        paths.append(folder / f"{k}.pt")
        save_model(paths[-1], potential, dtype="float64")
    return paths


@pytest.mark.parametrize("atoms", [ethanol(), bulk("Si", cubic=True)], ids=["ethanol", "silicon"])
def test_a_committee_is_the_mean_of_its_members(members, atoms):
    atoms = atoms.copy()
    atoms.rattle(0.05, seed=2)
    alone = [PETCalculator(path, device="cpu") for path in members]
    properties = ["energy", "energies", "forces"] + (["stress"] if atoms.pbc.all() else [])
    together = PETCalculator(members, device="cpu", uncertainty=True)
    together.calculate(atoms)
    found = [calculator.compute_batch([atoms], properties)[0] for calculator in alone]
    for name in properties:
        mean = np.mean([one[name] for one in found], axis=0)
        np.testing.assert_allclose(together.results[name], mean, rtol=0, atol=1e-11)
    deviations = {
        "energy_uncertainty": np.std([one["energy"] for one in found], ddof=1),
        "energies_uncertainty": np.std([one["energies"] for one in found], axis=0, ddof=1),
        "forces_uncertainty": np.sqrt(
            np.var([one["forces"] for one in found], axis=0, ddof=1).mean(axis=1)
        ),
    }
    for name, expected in deviations.items():
        np.testing.assert_allclose(together.results[name], expected, rtol=1e-8)
    stored = pickle.loads(pickle.dumps(together))
    assert stored.get_potential_energy(atoms) == pytest.approx(together.results["energy"], 1e-12)
    copied = copy.deepcopy(together)
    assert copied.get_potential_energy(atoms) == together.results["energy"]


def test_a_committee_of_models_that_do_not_go_together(members, path, tmp_path):
    with pytest.raises(UserError, match="two models or more"):
        PETCalculator([path])
    save_model(tmp_path / "m.pt", make_potential(results=["charges"]), dtype="float64")
    with pytest.raises(UserError, match="Model 1 of the committee predicts other results"):
        PETCalculator([path, tmp_path / "m.pt"])
    with pytest.raises(UserError, match="no average over orientations"):
        PETCalculator(members, symmetrization="structure")
    with pytest.raises(UserError, match="or a list of these"):
        PETCalculator([path, 3])


def test_a_committee_in_coarse_precision_has_no_deviations(members):
    assert "energy_uncertainty" in PETCalculator(members).implemented_properties
    coarse = PETCalculator(members, dtype="bf16-mixed")
    assert "energy_uncertainty" not in coarse.implemented_properties
    with pytest.raises(UserError, match="dtype bf16-mixed rounds away"):
        PETCalculator(members, dtype="bf16-mixed", uncertainty="forces")
