"""Labels of results that are no energies: declarations, reading, batches, baselines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from pydantic import ValidationError

from pet_mlip.data.batch import collate, label_totals, make_sample
from pet_mlip.data.checks import structure_problem
from pet_mlip.data.labels import DataUnits, LabelKeys, structure_from_atoms
from pet_mlip.data.reading import read_structures
from pet_mlip.data.result_baseline import fit_result_baseline
from pet_mlip.errors import UserError
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.results import KNOWN, Result

DECLARED = {
    "dipole": KNOWN["dipole"],
    "polarizability": KNOWN["polarizability"],
    "charges": KNOWN["charges"],
    "shielding": Result(rank=2, per_atom=True, unit="ppm"),
    "moment": Result(rank=1, per_atom=True),
    "gap": Result(rank=0, unit="eV"),
}
KEYS = LabelKeys(results=DECLARED)


def labels(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random labels of all results for n atoms."""
    rng = np.random.default_rng(seed)
    tensors = rng.normal(size=(n + 1, 3, 3))
    tensors = tensors + tensors.transpose(0, 2, 1)
    return {
        "dipole": rng.normal(size=3),
        "polarizability": tensors[0],
        "charges": rng.normal(size=n),
        "shielding": tensors[1:],
        "moment": rng.normal(size=(n, 3)),
        "gap": np.array(rng.normal()),
    }


def water(seed: int = 0) -> tuple[Atoms, dict[str, np.ndarray]]:
    """Three atoms: shapes of atoms and of components are easily confused."""
    atoms, given = molecule("H2O"), labels(3, seed)
    for name, values in given.items():
        if DECLARED[name].per_atom:
            atoms.set_array(name, values)
        else:
            atoms.info[name] = values
    return atoms, given


def test_results_are_read_as_declared():
    atoms, given = water()
    structure = structure_from_atoms(atoms, KEYS)
    assert structure.results.keys() == {"dipole", "polarizability", "gap"}
    assert structure.atomic_results.keys() == {"charges", "shielding", "moment"}
    for name, values in {**structure.results, **structure.atomic_results}.items():
        np.testing.assert_array_equal(values, given[name])
    assert not structure_from_atoms(atoms).results


def test_results_come_back_from_a_file(tmp_path):
    atoms, given = water()
    atoms.arrays["shielding"] = atoms.arrays["shielding"].reshape(3, 9)
    write(tmp_path / "a.xyz", atoms)
    (structure,) = read_structures([str(tmp_path / "a.xyz")], KEYS)
    for name, values in {**structure.results, **structure.atomic_results}.items():
        np.testing.assert_allclose(values, given[name], atol=1e-7)
    back = structure.to_atoms()
    np.testing.assert_allclose(back.info["dipole"], given["dipole"], atol=1e-7)
    assert read(tmp_path / "a.xyz").info["gap"] == pytest.approx(float(given["gap"]))


def test_results_of_calculators_and_under_other_names():
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, dipole=np.array([0.0, 0.0, 0.4]), charges=np.ones(3))
    atoms.info["dft_dipole"] = [1.0, 2.0, 3.0]
    structure = structure_from_atoms(atoms, KEYS)
    np.testing.assert_array_equal(structure.results["dipole"], [0, 0, 0.4])
    np.testing.assert_array_equal(structure.atomic_results["charges"], np.ones(3))
    keys = LabelKeys(results=DECLARED, result_keys={"dipole": "dft_dipole", "charges": None})
    structure = structure_from_atoms(atoms, keys)
    np.testing.assert_array_equal(structure.results["dipole"], [1, 2, 3])
    assert "charges" not in structure.atomic_results


def test_six_numbers_of_a_tensor_need_an_order(tmp_path):
    atoms = molecule("H2O")
    atoms.info["polarizability"] = np.arange(1.0, 7.0)
    write(tmp_path / "a.xyz", atoms)
    with pytest.raises(UserError, match="6 numbers, whose order is not known"):
        list(read_structures([str(tmp_path / "a.xyz")], KEYS))
    units = DataUnits(stress_order="voigt")
    (structure,) = read_structures([str(tmp_path / "a.xyz")], KEYS, units)
    expected = [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
    np.testing.assert_array_equal(structure.results["polarizability"], expected)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "dipole",
            np.ones(4),
            r"'dipole' has shape \(4,\), but dipole is declared with shape \(3,",
        ),
        ("polarizability", np.arange(9.0).reshape(3, 3), "polarizability is not symmetric"),
        ("gap", np.ones(2), r"declared with shape \(\) here"),
        ("charges", 1.0, "stands in the file with a value of the structure"),
        ("dipole", "large", "which is not numbers"),
    ],
)
def test_labels_of_another_shape_are_refused(name, value, sentence):
    atoms = molecule("H2O")
    atoms.info[name] = value
    with pytest.raises(UserError, match=sentence):
        structure_from_atoms(atoms, KEYS)


@pytest.mark.parametrize(
    ("name", "value"),
    [("dipole", np.ones(3)), ("polarizability", np.ones((3, 3))), ("gap", np.ones(3))],
)
def test_labels_of_atoms_are_none_of_a_structure(name, value):
    """Water has three atoms, and three components have vectors."""
    atoms = molecule("H2O")
    atoms.set_array(name, value)
    with pytest.raises(UserError, match="a value of each atom, but"):
        structure_from_atoms(atoms, KEYS)


@pytest.mark.parametrize(("name", "value"), [("moment", np.ones((3, 3))), ("charges", np.ones(3))])
def test_labels_of_a_structure_are_none_of_its_atoms(name, value):
    atoms = molecule("H2O")
    atoms.info[name] = value
    with pytest.raises(UserError, match="a value of the structure, but"):
        structure_from_atoms(atoms, KEYS)


def test_round_off_does_not_make_a_tensor_asymmetric():
    atoms = molecule("H2O")
    atoms.info["polarizability"] = np.array([[0, 1e-15, 0], [0, 0, 0], [0, 0, 0]])
    assert structure_from_atoms(atoms, KEYS).results["polarizability"].shape == (3, 3)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([{"dipole": {"unit": "debye"}}], "a list takes names only"),
        ({"x": {"rank": True}}, "rank is a number"),
        (["spin"], "means something else already"),
        ({"x": 1}, "takes rank, per_atom and unit"),
    ],
)
def test_declarations_that_are_wrong(value, sentence):
    with pytest.raises(ValidationError, match=sentence):
        PETHypers(results=value)


def test_a_result_that_is_not_finite_is_a_mistake():
    atoms = molecule("H2O")
    atoms.info["dipole"] = [0.0, np.nan, 0.0]
    assert structure_problem(structure_from_atoms(atoms, KEYS)) == (
        "dipole is not finite (NaN or infinite)"
    )


def test_batches_know_what_is_missing():
    atoms, given = water()
    with_labels, without = structure_from_atoms(atoms, KEYS), structure_from_atoms(molecule("OH"))
    batch = collate([make_sample(s, 3.0) for s in (without, with_labels)])
    assert batch.results["dipole"].shape == (2, 3)
    assert batch.results["dipole"][0].isnan().all()
    torch.testing.assert_close(batch.results["gap"][1], torch.tensor(given["gap"].item()).double())
    assert batch.atomic_results["shielding"].shape == (5, 3, 3)
    assert batch.atomic_results["charges"][:2].isnan().all()
    part = batch.part(1, 2)
    torch.testing.assert_close(part.atomic_results["moment"], torch.from_numpy(given["moment"]))
    assert part.results["dipole"].shape == (1, 3)
    assert batch.totals == label_totals([without, with_labels])
    assert batch.totals.results == {
        "dipole": 3, "polarizability": 9, "gap": 1, "charges": 3, "shielding": 27, "moment": 9,
    }  # fmt: skip


def test_baselines_take_what_the_composition_gives():
    structures = []
    rng = np.random.default_rng(0)
    for formula in ("H2O", "OH", "H2", "H2O", "OH"):
        atoms = molecule(formula)
        n_h, n_o = (int((atoms.numbers == z).sum()) for z in (1, 8))
        atoms.info["gap"] = 2.0 * n_h - 3.0 * n_o
        atoms.info["polarizability"] = (0.5 * n_h + 0.8 * n_o) * np.eye(3)
        atoms.info["dipole"] = len(atoms) * rng.choice([-0.1, 0.1], size=3)
        atoms.set_array("charges", np.where(atoms.numbers == 1, 0.4, -0.8))
        structures.append(structure_from_atoms(atoms, KEYS))

    def fit(name):
        return fit_result_baseline(structures, name, DECLARED[name], [1, 8])

    assert fit("gap").values == pytest.approx({1: 2.0, 8: -3.0})
    assert fit("polarizability").values == pytest.approx({1: 0.5, 8: 0.8})
    assert fit("charges").values == pytest.approx({1: 0.4, 8: -0.8})
    assert fit("gap").scale == fit("charges").scale == 1.0  # nothing is left to learn
    assert fit("dipole") == ({1: 0.0, 8: 0.0}, pytest.approx(0.1))
    assert fit("moment") == ({1: 0.0, 8: 0.0}, 1.0)


def test_names_complete_declarations():
    hypers = PETHypers(results=["dipole"])
    assert hypers.results == {"dipole": KNOWN["dipole"]}
    assert PETHypers(results="charges").results == {"charges": KNOWN["charges"]}
    other = PETHypers(results={"dipole": {"unit": "debye"}, "gap": {"rank": 0}})
    assert other.results["dipole"] == Result(rank=1, unit="debye")
    assert PETHypers(**other.model_dump()) == other
