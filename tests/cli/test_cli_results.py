"""Results that are no energies on the command line."""

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write
from model_files import small_potential

from pet_mlip import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.export import save_model

RESULTS = {
    "dipole": None,
    "charges": None,
    "shielding": {"rank": 2, "per_atom": True, "unit": "ppm"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "model.pt"
    save_model(path, small_potential(results=RESULTS), dtype="float64")
    return path


def test_info_lists_what_a_model_predicts(run_json):
    facts = run_json("info", "model.pt")["model"]
    assert facts["results"] == ["energy (eV): scalar of the structure, with forces and stress"]


def test_info_lists_other_results(run_json, model):
    assert run_json("info", model)["model"]["results"][1:] == [
        "dipole (e*angstrom): vector of the structure",
        "charges (e): scalar of each atom",
        "shielding (ppm): symmetric tensor of each atom",
    ]


def test_units_are_shown_in_the_terminal(run, model):
    assert "dipole (e*angstrom): vector" in run("info", model)[1]


def test_errors_and_predictions_of_results(run_json, model, tmp_path):
    """Labels are what the model says, plus an error that is known."""
    atoms = [molecule("CH3OH"), molecule("H2O")]  # the latter has three atoms
    calculator = PETCalculator(model)
    for each in atoms:
        each.info["dft_dipole"] = calculator.get_property("dipole", each) + 0.5
        tensors = calculator.results["shielding"] + 2.0
        each.set_array("shielding", tensors.reshape(-1, 9))
    write(tmp_path / "data.xyz", atoms)
    predicted = tmp_path / "predicted.xyz"
    found = run_json(
        *("eval", model, tmp_path / "data.xyz", "--result-key", "dipole=dft_dipole"),
        *("--rotations", 0, "--output", predicted, "--report", tmp_path / "report"),
    )
    errors = found["errors"]
    assert errors["units"] == {"dipole": "e*angstrom", "shielding": "ppm"}
    assert errors["all"]["dipole"]["mae"] == pytest.approx(0.5, abs=1e-6)
    assert errors["all"]["dipole"]["count"] == 6
    assert errors["all"]["shielding"]["rmse"] == pytest.approx(2.0, abs=1e-6)
    assert errors["all"]["shielding"]["count"] == 6 * (6 + 3)
    assert (tmp_path / "report" / "parity_dipole.png").is_file()
    for before, after in zip(atoms, read(predicted, ":"), strict=True):
        before.calc = calculator
        np.testing.assert_allclose(after.get_dipole_moment(), before.get_dipole_moment(), atol=1e-7)
        np.testing.assert_allclose(after.info["reference_dipole"], before.info["dft_dipole"])
        assert after.arrays["reference_shielding"].shape == (len(before), 9)
        np.testing.assert_allclose(after.get_charges(), before.get_charges(), atol=1e-7)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [("dipole", "write NAME=KEY"), ("=d", "no result"), ("magmoms=m", "has no result magmoms")],
)
def test_keys_of_results_that_are_wrong(run, model, key, sentence):
    code, _, err = run("eval", model, "data.xyz", "--result-key", key)
    assert code == 1
    assert sentence in err


def test_an_average_over_orientations_has_energies_only(model):
    """Published models may have other results, which no average turns back."""
    plain = model.with_name("plain.pt")
    save_model(plain, small_potential("none", results=["dipole"]), dtype="float64")
    assert "dipole" in PETCalculator(plain).implemented_properties
    averaged = PETCalculator(plain, symmetrization="structure")
    assert "dipole" not in averaged.implemented_properties
    with pytest.raises((UserError, NotImplementedError), match="dipole"):
        averaged.get_property("dipole", molecule("H2O"))
