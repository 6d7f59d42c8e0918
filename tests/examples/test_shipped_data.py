"""The data in examples/data: complete, small, and labelled in our units and signs."""

from pathlib import Path

import numpy as np
import pytest
from ase.io import read
from tblite.ase import TBLite

DATA = Path(__file__).parents[2] / "examples" / "data"
SIZES = {
    "ethanol": {"train": 243, "val": 27, "test": 90},
    "diamond": {"train": 42, "val": 6, "test": 12},
}
METHODS = {"ethanol": "GFN2-xTB", "diamond": "GFN1-xTB"}


def energy(atoms, method):
    atoms.calc = TBLite(method=method, accuracy=0.01, verbosity=0)
    return atoms.get_potential_energy()


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_files(name, part):
    structures = read(DATA / name / f"{part}.xyz", ":")
    assert len(structures) == SIZES[name][part]
    for atoms in structures:
        assert np.isfinite(atoms.get_potential_energy())
        assert atoms.get_forces().shape == (len(atoms), 3)
        assert np.abs(atoms.get_forces().sum(axis=0)).max() < 1e-4
        assert ("stress" in atoms.calc.results) == bool(atoms.pbc.all())
        assert "config_type" in atoms.info


@pytest.mark.parametrize("name", SIZES)
def test_no_structure_is_in_two_parts(name):
    energies = [
        atoms.get_potential_energy()
        for part in SIZES[name]
        for atoms in read(DATA / name / f"{part}.xyz", ":")
    ]
    assert len(set(energies)) == len(energies)


def test_size():
    assert sum(file.stat().st_size for file in DATA.rglob("*") if file.is_file()) < 2_000_000


@pytest.mark.parametrize("name", METHODS)
def test_energy_and_force_of_a_structure(name):
    atoms = read(DATA / name / "val.xyz", "-1")
    assert energy(atoms.copy(), METHODS[name]) == pytest.approx(
        atoms.get_potential_energy(), abs=1e-5
    )
    step, energies = 2e-3, []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[0, 1] += sign * step
        energies.append(energy(moved, METHODS[name]))
    slope = (energies[0] - energies[1]) / (2 * step)
    assert -slope == pytest.approx(atoms.get_forces()[0, 1], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 2)])
def test_stress_of_a_structure(row, column):
    atoms = read(DATA / "diamond" / "val.xyz", "0")
    step, energies = 1e-3, []
    for sign in (1, -1):
        strain = np.eye(3)
        strain[row, column] += sign * step / 2
        strain[column, row] += sign * step / 2
        strained = atoms.copy()
        strained.set_cell(atoms.cell @ strain, scale_atoms=True)
        energies.append(energy(strained, METHODS["diamond"]))
    slope = (energies[0] - energies[1]) / (2 * step)
    stress = atoms.get_stress(voigt=False)[row, column]
    assert slope / atoms.get_volume() == pytest.approx(stress, abs=1e-4)
