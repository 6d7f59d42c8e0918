"""Where no cutoff is given, atoms do not have more neighbours than a training has time for."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from rich.console import Console

from pet_mlip.config import validate
from pet_mlip.data.labels import structure_from_atoms
from pet_mlip.data.neighbours import neighbour_list
from pet_mlip.train.setup import MOST_NEIGHBOURS, choose_cutoff, load_data, resolve


def config(folder=".", **model):
    data = {"root": str(folder), "train": "train.xyz", "validation": 0.5}
    return validate({"data": data, "model": model, "training": {"epochs": 1}}, "test")


def rattled(crystal, n=4):
    found = [bulk(crystal, cubic=True) for _ in range(n)]
    for k, atoms in enumerate(found):
        atoms.rattle(0.1, seed=k)
    return found


@pytest.mark.parametrize("crystal", ["Cu", "C", "W"])
def test_dense_materials(crystal):
    structures = [structure_from_atoms(atoms) for atoms in rattled(crystal)]
    cutoff = choose_cutoff(config(), structures)
    assert 3.0 <= cutoff < 5.0

    def neighbours(reach):
        found = [neighbour_list(s.positions, s.cell, s.pbc, reach)[1] for s in structures]
        return sum(map(len, found)) / sum(len(s.species) for s in structures)

    assert neighbours(cutoff) <= MOST_NEIGHBOURS <= neighbours(cutoff + 0.11)


def test_molecules_and_open_crystals_keep_the_default():
    for group in (rattled("Si"), [molecule("C6H6")], []):
        assert choose_cutoff(config(), [structure_from_atoms(a) for a in group]) == 5.0


@pytest.mark.parametrize(
    "model", [{"cutoff": 5.0}, {"cutoff_width": 2.0}, {"num_neighbors_adaptive": 16.0}]
)
def test_what_is_given_stays(model):
    structures = [structure_from_atoms(atoms) for atoms in rattled("Cu")]
    assert choose_cutoff(config(**model), structures) == 5.0


def test_neighbours_and_model_have_the_same(tmp_path):
    crystals = rattled("Cu", 6)
    for atoms in crystals:
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((4, 3)))
    write(tmp_path / "train.xyz", crystals)
    data = load_data(config(tmp_path), Console(quiet=True))
    resolved = resolve(config(tmp_path), data)
    assert resolved.model.cutoff == data.training.cutoff == data.validation.cutoff < 5.0
    # What is written down is what a resumed training reads.
    assert validate(resolved.to_dict(), "test").model.cutoff == resolved.model.cutoff
