"""`pet-mlip eval`."""

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write


def test_tables(run):
    code, out, _ = run("eval", "model.pt", "data.xyz", "--rotations", "2")
    assert code == 0
    assert "energy per atom" in out
    assert "meV/Å^3" in out
    assert "crystal" in out
    assert "Rotational error" in out


def test_json(run_json):
    found = run_json("eval", "model.pt", "data.xyz", "--rotations", 2)
    assert found["structures"] == 6
    assert found["errors"]["all"]["energy"]["mae"] == pytest.approx(10.0, abs=1e-4)
    assert found["errors"]["all"]["stress"]["count"] == 3 * 6
    assert found["errors"]["all"]["forces"]["rmse"] < 1e-4
    assert found["rotational_error"]["structures"] == 6
    assert found["rotational_error"]["energy_per_atom_std"]["max"] < 1e-7


def test_several_files_and_slices(run_json):
    found = run_json("eval", "model.pt", "data.xyz@:2", "data.xyz", "--rotations", 0)
    assert found["structures"] == 8
    assert found["rotational_error"] is None


def test_predictions(run, folder, tmp_path):
    path = tmp_path / "new" / "predicted.xyz"
    code, _, _ = run("eval", "model.pt", "data.xyz", "--output", path, "--rotations", 0)
    assert code == 0
    predicted, given = read(path, ":"), read(folder / "data.xyz", ":")
    assert len(predicted) == len(given)
    for a, b in zip(predicted, given, strict=True):
        assert a.info["reference_energy"] == pytest.approx(b.get_potential_energy())
        assert a.get_potential_energy() == pytest.approx(b.get_potential_energy() - 0.01)
        assert np.allclose(a.get_forces(), b.get_forces(), atol=1e-6)
        assert np.allclose(a.arrays["reference_forces"], b.get_forces(), atol=1e-6)
        assert a.info["config_type"] == b.info["config_type"]
        assert np.array_equal(a.pbc, b.pbc)
    assert predicted[0].get_stress() == pytest.approx(given[0].get_stress(), abs=1e-6)


def test_report(run, tmp_path):
    code, _, _ = run("eval", "model.pt", "data.xyz", "--report", tmp_path / "r", "--rotations", 0)
    assert code == 0
    assert json.loads((tmp_path / "r" / "errors.json").read_text())["structures"] == 6
    assert (tmp_path / "r" / "parity_forces.png").exists()


def test_keys(run_json, folder, tmp_path):
    atoms = read(folder / "data.xyz")
    energy = atoms.get_potential_energy()
    atoms.calc = None
    atoms.info["dft_energy"] = energy
    write(tmp_path / "keys.xyz", atoms)
    found = run_json("eval", "model.pt", tmp_path / "keys.xyz", "--energy-key", "dft_energy")
    assert set(found["errors"]["all"]) == {"energy", "energy_per_atom"}


def test_data_without_labels(run, folder, tmp_path):
    arguments = ["eval", "model.pt", "silicon.xyz", "--rotations", "0"]
    code, _, err = run(*arguments)
    assert code == 1
    assert "--energy-key" in err
    assert run(*arguments, "--output", tmp_path / "p.xyz")[0] == 0
    assert read(tmp_path / "p.xyz").get_forces().shape == (8, 3)


def test_an_unknown_element_names_file_and_frame(run, folder):
    write(folder / "iron.xyz", [bulk("Si"), bulk("Fe")])
    code, _, err = run("eval", "model.pt", "iron.xyz")
    assert code == 1
    assert "Atom 0 of iron.xyz, frame 1 is Fe" in err


def test_name_of_the_output(run):
    code, _, err = run("eval", "model.pt", "data.xyz", "--output", "predicted.cif")
    assert code == 1
    assert ".xyz" in err
