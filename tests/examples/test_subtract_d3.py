"""Labels without D3 and D3 are the labels."""

import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.mixing import SumCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from model_tools import make_potential

from pet_mlip import PETCalculator
from pet_mlip.export import save_model

dftd3 = pytest.importorskip("dftd3.ase")
SCRIPT = Path(__file__).parents[2] / "examples" / "tools" / "subtract_d3.py"


def run(folder, *arguments):
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_model_of_the_rest_and_d3_have_the_labels(tmp_path):
    """The model itself stands for a perfectly trained one."""
    save_model(tmp_path / "model.pt", make_potential(), dtype="float64")
    whole = SumCalculator(
        [PETCalculator(tmp_path / "model.pt"), dftd3.DFTD3(method="PBE", damping="d3bj")]
    )
    structures = [molecule("CH3CH2OH"), bulk("SiO", "zincblende", a=4.4, cubic=True)]
    for atoms in structures:
        atoms.rattle(0.05, seed=1)
        atoms.calc = whole
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        if atoms.pbc.all():
            labels["stress"] = atoms.get_stress()
        atoms.calc = SinglePointCalculator(atoms, **labels)
    ase.io.write(tmp_path / "train.xyz", structures)
    assert run(tmp_path, "train.xyz", "--method", "PBE").returncode == 0
    for atoms, rest in zip(structures, ase.io.read(tmp_path / "train.rest.xyz", ":"), strict=True):
        atoms.calc = PETCalculator(tmp_path / "model.pt")
        assert rest.info["subtracted"] == "D3 PBE d3bj"
        labels = rest.calc.results
        assert labels["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        assert np.abs(labels["forces"] - atoms.get_forces()).max() < 1e-6
        if "stress" in labels:
            assert np.abs(labels["stress"] - atoms.get_stress()).max() < 1e-6
    assert "stress" in labels


def test_constraints_and_other_labels_stay_what_they_are(tmp_path):
    atoms = molecule("CH3CH2OH")
    d3 = dftd3.DFTD3(method="PBE", damping="d3bj")
    expected = 1.0 - d3.get_forces(atoms)
    dipole = np.array([0.1, 0.2, 0.3])
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.ones((9, 3)), dipole=dipole)
    atoms.set_constraint(FixAtoms([0, 1]))
    ase.io.write(tmp_path / "a.xyz", atoms)
    assert run(tmp_path, "a.xyz", "--method", "PBE").returncode == 0
    rest = ase.io.read(tmp_path / "a.rest.xyz")
    assert np.abs(rest.calc.results["forces"] - expected).max() < 1e-7
    assert rest.calc.results["dipole"] == pytest.approx(dipole)
    atoms.info["virial"] = np.eye(3)
    ase.io.write(tmp_path / "v.xyz", atoms)
    refused = run(tmp_path, "v.xyz", "--method", "PBE")
    assert "v.xyz, structure 0: it has 'virial'" in refused.stderr
    assert not (tmp_path / "v.rest.xyz").exists()


def test_nothing_is_subtracted_twice_or_overwritten(tmp_path):
    atoms = molecule("H2O")
    ase.io.write(tmp_path / "bare.xyz", atoms)
    assert (
        "bare.xyz, structure 0: it has no energy"
        in run(tmp_path, "bare.xyz", "--method", "PBE").stderr
    )
    atoms.calc = dftd3.DFTD3(method="PBE", damping="d3bj")
    atoms.get_forces()
    ase.io.write(tmp_path / "a.xyz", atoms)
    assert run(tmp_path, "a.xyz", "--method", "PBE").returncode == 0
    assert np.abs(ase.io.read(tmp_path / "a.rest.xyz").get_forces()).max() < 1e-7
    assert "a.rest.xyz is there already" in run(tmp_path, "a.xyz", "--method", "PBE").stderr
    again = run(tmp_path, "a.rest.xyz", "--method", "PBE")
    assert "D3 PBE d3bj is subtracted already" in again.stderr
