"""Many structures at once give what each of them gives alone."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError

from pet_mlip import PETCalculator
from pet_mlip.ase.calculator import split
from pet_mlip.errors import UserError


@pytest.fixture
def structures():
    found = [molecule("H2O"), bulk("Si"), Atoms("O"), bulk("Cu"), molecule("CO2"), Atoms()]
    for k, atoms in enumerate(found):
        atoms.rattle(0.05, seed=k)
    return found


@pytest.mark.parametrize("max_atoms", [1, 4, 1000])
def test_batch_is_like_one_by_one(model_file, structures, max_atoms):
    calculator = PETCalculator(model_file)
    properties = ("energy", "energies", "forces", "stress")
    batch = calculator.compute_batch(structures, properties, max_atoms)
    for atoms, found in zip(structures, batch, strict=True):
        atoms.calc = calculator
        assert found["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        assert np.allclose(found["energies"], atoms.get_potential_energies(), rtol=0, atol=1e-12)
        assert np.allclose(found["forces"], atoms.get_forces(), rtol=0, atol=1e-12)
        assert ("stress" in found) == (atoms.cell.rank == 3)
        if "stress" in found:
            assert np.allclose(found["stress"], atoms.get_stress(), rtol=0, atol=1e-12)
        assert np.array_equal(found["n_frames"], calculator.info["n_frames"])


def test_only_what_is_asked_for(model_file, structures):
    batch = PETCalculator(model_file).compute_batch(structures, ["energy"])
    assert all(set(found) == {"energy", "n_frames"} for found in batch)


def test_no_structures(model_file):
    assert PETCalculator(model_file).compute_batch([]) == []


def test_unknown_property(model_file, structures):
    with pytest.raises(PropertyNotImplementedError, match="dipole"):
        PETCalculator(model_file).compute_batch(structures, ["energy", "dipole"])


def test_an_error_names_the_structure(model_file, structures):
    with pytest.raises(UserError, match=r"Atom 1 of structure 6 is Fe.*H, C, O, Si, Cu"):
        PETCalculator(model_file).compute_batch([*structures, Atoms("OFe")], max_atoms=3)


def test_groups_are_bounded():
    structures = [Atoms(f"H{n}") for n in (3, 3, 9, 1, 1, 5)]
    sizes = [[len(atoms) for atoms in group] for group in split(structures, 6)]
    assert sizes == [[3, 3], [9], [1, 1], [5]]


def test_chunks_change_nothing(model_file, structures):
    whole = PETCalculator(model_file, chunk_size=0).compute_batch(structures)
    parts = PETCalculator(model_file, chunk_size=50).compute_batch(structures)
    for a, b in zip(whole, parts, strict=True):
        assert a["energy"] == pytest.approx(b["energy"], abs=1e-11)
        assert np.allclose(a["forces"], b["forces"], rtol=0, atol=1e-11)
