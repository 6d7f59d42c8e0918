"""The weights that come with the package."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import read

from pet_mlip import PETCalculator
from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.errors import UserError
from pet_mlip.export import load_model, read_metadata
from pet_mlip.train import load_checkpoint
from pet_mlip.weights import CHECKPOINT, FOLDER, MODEL, find_weights, shipped

ETHANOL = Path(__file__).parents[1] / "examples" / "data" / "ethanol" / "test.xyz"
"""GFN2-xTB; ethanol was not in the training set."""

names = pytest.mark.parametrize("name", shipped())


def test_there_are_some():
    assert "organic-xtb" in shipped()


@names
def test_checkpoint_model_and_card_belong_together(name):
    potential, _, summary = load_checkpoint(name)
    metadata = read_metadata(name)
    assert metadata.species == potential.species
    assert metadata.training["steps"] == summary["steps"]
    atoms = molecule("CH3CH2OH")
    with torch.no_grad():
        energies = potential(batch_from_atoms([atoms], potential.cutoff).graph)
    found = PETCalculator(load_model(name, device="cpu")).get_potential_energies(atoms)
    np.testing.assert_allclose(found, energies, rtol=0, atol=1e-5)
    assert (FOLDER / f"{name}.md").is_file()


@names
def test_they_are_small(name):
    assert sum((FOLDER / f"{name}{suffix}").stat().st_size for suffix in (CHECKPOINT, MODEL)) < 8e6


def test_a_molecule_that_was_not_trained_on():
    calculator = PETCalculator("organic-xtb")
    errors = [
        atoms.get_forces() - calculator.get_forces(atoms.copy()) for atoms in read(ETHANOL, ":20")
    ]
    assert np.sqrt(np.mean(np.square(errors))) < 0.035  # 0.023 for the whole file


@pytest.mark.parametrize(("heavy", "hydrogen"), [(2, 3), (0, 6)], ids=["O-H", "C-H"])
def test_uncertainties_rise_where_a_hydrogen_atom_leaves(heavy, hydrogen):
    calculator = PETCalculator("organic-xtb")
    atoms = molecule("CH3CH2OH")
    length = atoms.get_distance(heavy, hydrogen)
    assert length < 1.2
    structures = []
    for stretch in (1.0, 1.2, 1.4, 1.6, 2.0):
        structures.append(atoms.copy())
        structures[-1].set_distance(heavy, hydrogen, stretch * length, fix=0)
    radical = atoms.copy()
    del radical[hydrogen]
    names = ("energy_uncertainty", "forces_uncertainty")
    found = calculator.compute_batch([*structures, radical], names)
    energy = np.array([result["energy_uncertainty"] for result in found])
    force = np.array([result["forces_uncertainty"].max() for result in found])
    assert (np.diff(energy[:-1]) > 0).all() and (np.diff(force[:-1]) > 0).all()
    assert energy[-2] > 10 * energy[0] and force[-2] > 10 * force[0]
    assert energy[-1] > 1.2 * energy[0] and force[-1] > 1.5 * force[0]


def test_an_unknown_element_is_refused():
    with pytest.raises(UserError, match="Br"):
        PETCalculator("organic-xtb").get_forces(_bromide())


def _bromide():
    atoms = molecule("CH3Cl")
    atoms.symbols[atoms.symbols == "Cl"] = "Br"
    return atoms


def test_a_file_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_weights("organic-xtb", MODEL).parent == FOLDER
    Path("organic-xtb").write_text("a file of the user's")
    assert find_weights("organic-xtb", MODEL) == Path("organic-xtb")
    Path("organic-xtb").unlink()
    Path("organic-xtb").mkdir()
    assert find_weights("organic-xtb", CHECKPOINT) == Path("organic-xtb")
    assert find_weights("missing.pt", MODEL) == Path("missing.pt")


@pytest.mark.parametrize("load", [load_checkpoint, load_model])
def test_what_there_is_is_said(load):
    with pytest.raises(UserError, match="organic-xtb"):
        load("organic")
