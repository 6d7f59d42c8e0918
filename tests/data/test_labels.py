"""Where labels stand, and in which units."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import read, write

from pet_mlip.data.labels import DataUnits, LabelKeys, label_names, structure_from_atoms
from pet_mlip.data.reading import read_structures
from pet_mlip.data.structure import Source
from pet_mlip.errors import UserError

VOIGT = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
FULL = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])


def cube(**info):
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 1.0]], cell=[2, 2, 2], pbc=True)
    atoms.info.update(info)
    return atoms


def test_without_labels():
    structure = structure_from_atoms(molecule("H2O"))
    assert structure.energy is None and structure.forces is None and structure.stress is None


def test_info_and_arrays():
    atoms = cube(energy=-1.5, stress=VOIGT, config_type="cubes")
    atoms.arrays["forces"] = np.arange(6.0).reshape(2, 3)
    structure = structure_from_atoms(atoms)
    assert structure.energy == -1.5
    assert structure.config_type == "cubes"
    np.testing.assert_array_equal(structure.forces, atoms.arrays["forces"])
    np.testing.assert_array_equal(structure.stress, FULL)


def test_names_choose_between_several_labels():
    atoms = cube(energy=1.0, REF_energy=2.0)
    atoms.calc = SinglePointCalculator(atoms, energy=3.0, free_energy=4.0)
    energies = {
        key: structure_from_atoms(atoms, LabelKeys(energy=key)).energy
        for key in ("auto", "energy", "REF_energy", "free_energy", "nothing", None)
    }
    assert energies == {
        "auto": 3.0,
        "energy": 1.0,
        "REF_energy": 2.0,
        "free_energy": 4.0,
        "nothing": None,
        None: None,
    }


@pytest.mark.parametrize("energy_key", ["energy", "REF_energy"])
def test_extxyz_moves_labels_but_none_is_lost(tmp_path, energy_key):
    """ASE moves `energy` into a calculator while reading, and leaves `REF_energy` where it is."""
    text = f'2\nProperties=species:S:1:pos:R:3:REF_forces:R:3 {energy_key}=-1.5 pbc="F F F"\n'
    text += "H 0 0 0 1 2 3\nH 0 0 1 -1 -2 -3\n"
    (tmp_path / "a.xyz").write_text(text)
    keys = LabelKeys(energy=energy_key, forces="REF_forces")
    (structure,) = read_structures(tmp_path / "a.xyz", keys)
    assert structure.energy == -1.5
    np.testing.assert_array_equal(structure.forces, [[1, 2, 3], [-1, -2, -3]])
    names = label_names(read(tmp_path / "a.xyz"))
    assert {energy_key, "REF_forces"} <= set(names)


@pytest.mark.parametrize("value", [VOIGT, FULL, FULL.ravel(), FULL + np.triu(1e-4 * FULL, 1)])
def test_stress_shapes(value):
    stress = structure_from_atoms(cube(stress=value)).stress
    np.testing.assert_allclose(stress, FULL, rtol=1e-4)
    np.testing.assert_array_equal(stress, stress.T)


def test_order_of_six_numbers():
    """ASE's results have ASE's order; everything else has the order that is set."""
    vasp = DataUnits(stress_order="vasp")
    permuted = np.array([[1, 4, 6], [4, 2, 5], [6, 5, 3]])
    for name in ("stress", "sigma"):
        found = structure_from_atoms(cube(**{name: VOIGT}), LabelKeys(stress=name), vasp)
        np.testing.assert_array_equal(found.stress, permuted)
    atoms = cube()
    atoms.calc = SinglePointCalculator(atoms, stress=VOIGT)
    for source in (None, Source("a.traj", 0)):
        for units_ in (DataUnits(), vasp):
            found = structure_from_atoms(atoms, data_units=units_, source=source)
            np.testing.assert_array_equal(found.stress, FULL)


@pytest.mark.parametrize("name", ["a.traj", "a.json", "a.xyz"])
def test_six_numbers_in_files_beside_the_results(tmp_path, name):
    write(tmp_path / name, cube(dft_stress=VOIGT))
    if name == "a.json":
        (tmp_path / name).unlink()
        with connect(tmp_path / name) as database:
            database.write(cube(), data={"dft_stress": VOIGT})
    keys = LabelKeys(stress="dft_stress")
    with pytest.raises(UserError, match="'dft_stress' has 6 numbers"):
        list(read_structures(tmp_path / name, keys))
    (found,) = read_structures(tmp_path / name, keys, DataUnits(stress_order="voigt"))
    np.testing.assert_array_equal(found.stress, FULL)


def test_numbers_of_atoms_are_no_stress():
    atoms = cube()
    atoms.arrays["forces"] = np.ones((2, 3))  # 6 numbers
    with pytest.raises(UserError, match=r"stress has shape \(2, 3\)"):
        structure_from_atoms(atoms, LabelKeys(stress="forces"))
    three = Atoms("H3", np.diag([1.0, 2, 3]), cell=[5, 5, 5], pbc=True)
    three.arrays["symmetric"] = np.ones((3, 3))
    with pytest.raises(UserError, match=r"stress has shape \(3, 3\)"):
        structure_from_atoms(three, LabelKeys(stress="symmetric"))


def test_virial_is_minus_volume_times_stress():
    structure = structure_from_atoms(cube(virial=-8.0 * FULL))
    np.testing.assert_allclose(structure.stress, FULL)
    both = structure_from_atoms(cube(virial=-8.0 * FULL, stress=2 * FULL))
    np.testing.assert_allclose(both.stress, 2 * FULL)
    none = structure_from_atoms(cube(virial=FULL), LabelKeys(virial=None))
    assert none.stress is None


def test_stress_sign_is_that_of_a_strain_derivative(tmp_path):
    """The stress that is read is dE/d(strain) / V of the structure that is read."""
    atoms = bulk("Cu", cubic=True, a=3.5)
    atoms.calc = EMT()
    atoms.get_stress()
    write(tmp_path / "a.xyz", atoms)
    (structure,) = read_structures(tmp_path / "a.xyz")

    def energy(strain):
        strained = structure.to_atoms()
        strained.set_cell(structure.cell @ (np.eye(3) + strain), scale_atoms=True)
        strained.calc = EMT()
        return strained.get_potential_energy()

    for i, j in [(0, 0), (1, 2)]:
        step = np.zeros((3, 3))
        step[i, j] = step[j, i] = 1e-4 if i == j else 0.5e-4
        slope = (energy(step) - energy(-step)) / 2e-4 / structure.volume
        np.testing.assert_allclose(structure.stress[i, j], slope, atol=1e-7)
    assert structure.stress[0, 0] < 0  # Compressed.


def test_stress_needs_a_volume():
    molecular = Atoms("H2", [[0, 0, 0], [0, 0, 1]], cell=[5, 5, 5], pbc=False)
    molecular.info["stress"] = FULL
    assert structure_from_atoms(molecular).stress is None
    slab = Atoms("H2", [[0, 0, 0], [0, 0, 1]], cell=[5, 5, 0], pbc=(True, True, False))
    slab.info["stress"] = FULL
    assert structure_from_atoms(slab).stress is None
    slab.set_cell([5, 5, 10])
    structure = structure_from_atoms(slab)
    np.testing.assert_array_equal(structure.stress, FULL)
    assert structure.volume == pytest.approx(250.0)


@pytest.mark.parametrize(
    ("data_units", "energy", "length", "stress"),
    [
        (DataUnits(), 1.0, 1.0, 1.0),
        (DataUnits("meV"), 1e-3, 1.0, 1e-3),
        (DataUnits("kcal/mol"), 0.0433641, 1.0, 0.0433641),
        (DataUnits("kJ/mol"), 0.010364270, 1.0, 0.010364270),
        (DataUnits("Hartree", "Bohr"), 27.2113862, 0.52917721, 27.2113862 / 0.52917721**3),
        (DataUnits("Rydberg", "Bohr"), 13.6056931, 0.52917721, 13.6056931 / 0.52917721**3),
        (DataUnits("eV", "nm"), 1.0, 10.0, 1e-3),
        (DataUnits(stress="GPa"), 1.0, 1.0, 1 / 160.21766),
        (DataUnits(stress="kbar", stress_sign=-1), 1.0, 1.0, -1 / 1602.1766),
        (DataUnits(stress="bar"), 1.0, 1.0, 1 / 1602176.6),
    ],
)
def test_units(data_units, energy, length, stress):
    atoms = cube(energy=1.0, stress=FULL)
    atoms.arrays["forces"] = np.ones((2, 3))
    structure = structure_from_atoms(atoms, data_units=data_units)
    np.testing.assert_allclose(structure.energy, energy, rtol=1e-6)
    np.testing.assert_allclose(structure.positions, length * atoms.positions, rtol=1e-6)
    np.testing.assert_allclose(structure.cell, length * atoms.cell.array, rtol=1e-6)
    np.testing.assert_allclose(structure.forces, energy / length, rtol=1e-6)
    np.testing.assert_allclose(structure.stress, stress * FULL, rtol=1e-6)


def test_virial_units():
    structure = structure_from_atoms(
        cube(virial=FULL), data_units=DataUnits("Hartree", "Bohr", "GPa", -1)
    )
    volume = 8 * units.Bohr**3
    np.testing.assert_allclose(structure.stress, -units.Hartree * FULL / volume)


def test_unknown_unit_is_told():
    with pytest.raises(UserError, match="'hartree' is not one of eV, meV, Hartree"):
        DataUnits("hartree")


@pytest.mark.parametrize(
    ("info", "arrays", "keys", "words"),
    [
        ({"energy": np.ones(2)}, {}, LabelKeys(), "energy has shape"),
        ({"energy": "many"}, {}, LabelKeys(), "'many', which is not numbers"),
        ({}, {"q": np.ones(2)}, LabelKeys(forces="q"), r"forces have shape \(2,\) instead"),
        ({"stress": np.ones(5)}, {}, LabelKeys(), "stress has shape"),
        ({"stress": np.arange(9.0)}, {}, LabelKeys(), "stress is not symmetric"),
        ({"virial": np.arange(9.0)}, {}, LabelKeys(), "virial is not symmetric"),
    ],
)
def test_malformed_labels_are_told(info, arrays, keys, words):
    atoms = cube(**info)
    atoms.arrays.update(arrays)
    with pytest.raises(UserError, match=words):
        structure_from_atoms(atoms, keys)


def test_structures_survive_a_round_trip(tmp_path, crystals):
    write(tmp_path / "a.xyz", crystals)
    first = list(read_structures(tmp_path / "a.xyz"))
    write(tmp_path / "b.xyz", [s.to_atoms() for s in first])
    for a, b in zip(first, read_structures(tmp_path / "b.xyz"), strict=True):
        np.testing.assert_allclose(a.stress, b.stress, atol=1e-8)
        np.testing.assert_allclose(a.forces, b.forces, atol=1e-8)
        assert a.energy == b.energy


def test_atoms_carry_charge_and_multiplicity_that_are_not_the_default():
    keys = LabelKeys(charge="q", spin_multiplicity="multiplicity")
    atoms = structure_from_atoms(cube(q=-1, multiplicity=3), keys).to_atoms()
    assert (atoms.info["charge"], atoms.info["spin_multiplicity"]) == (-1, 3)
    neutral = structure_from_atoms(cube(q=0, multiplicity=1), keys).to_atoms()
    assert not {"charge", "spin_multiplicity"} & set(neutral.info)
