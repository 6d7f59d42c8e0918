"""What `pet-mlip info DATA` says."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pet_mlip.data.labels import structure_from_atoms
from pet_mlip.data.statistics import data_statistics


@pytest.fixture
def structures(crystals, molecules):
    return [structure_from_atoms(atoms) for atoms in [*crystals, *molecules]]


def test_numbers(structures):
    s = data_statistics(structures, cutoff=3.0)
    atoms = [a for structure in structures for a in structure.species]
    assert s.n_structures == 11 and s.n_atoms == len(atoms)
    assert s.elements["Cu"] == atoms.count(29)
    assert s.periodicity == {"abc": 6, "none": 5}
    assert s.labels == {"energy": 11, "forces": 11, "stress": 6}
    assert s.atoms_per_structure.min == 3 and s.atoms_per_structure.max == 12
    forces = np.concatenate([structure.forces for structure in structures])
    norms = np.linalg.norm(forces, axis=1)
    assert s.force_rms == pytest.approx(math.sqrt((forces**2).mean()))
    assert s.force_norm.mean == pytest.approx(norms.mean())
    assert s.force_norm.std == pytest.approx(norms.std())
    per_atom = [structure.energy / structure.n_atoms for structure in structures]
    assert s.energy_per_atom.max == pytest.approx(max(per_atom))
    assert s.pressure.max == pytest.approx(max(-np.trace(x.stress) / 3 for x in structures[:6]))
    water = structures[7].positions
    assert s.shortest_by_pair["H-O"] <= np.linalg.norm(water[1] - water[0])
    assert not s.problems and not s.duplicates


def test_neighbour_counts(crystals):
    s = data_statistics([structure_from_atoms(crystals[0])], cutoff=3.1)
    assert (s.neighbours.min, s.neighbours.max) == (12, 12)
    assert 2.2 < s.nearest_distance.mean < 2.6


def test_everything_is_json(structures):
    again = json.loads(json.dumps(data_statistics(structures).to_dict()))
    assert again["elements"]["C"] == 10


def test_outliers_are_named(make_structure):
    generator = np.random.default_rng(0)
    structures = [
        make_structure([1, 8], i, energy=generator.normal(), forces=generator.normal(size=(2, 3)))
        for i in range(60)
    ]
    assert not data_statistics(structures).outliers
    structures[17].energy = 50.0
    structures[42].forces[0] = 40.0
    found = data_statistics(structures).outliers
    assert [(o.source, o.quantity.split()[0]) for o in found] == [
        ("made.xyz, frame 17", "energy"),
        ("made.xyz, frame 42", "largest"),
    ]


def test_composition_is_no_outlier(make_structure):
    generator = np.random.default_rng(0)
    energies = {1: -13.0, 8: -2000.0}
    structures = []
    for i in range(40):
        species = [1] * (1 + i % 5) + [8] * (1 + i % 3)
        energy = sum(energies[z] for z in species) + 0.01 * generator.normal()
        structures.append(make_structure(species, i, energy=energy))
    s = data_statistics(structures)
    assert not s.outliers
    assert s.energy_residual.std < 0.1 < s.energy_per_atom.std


def test_duplicates(make_structure):
    structures = [make_structure([1, 8], seed) for seed in (0, 1, 2)]
    again = make_structure([1, 8], 1)
    again.positions += 1e-9
    other = make_structure([8, 1], 2)
    s = data_statistics([*structures, again, other])
    assert s.duplicates == [["made.xyz, frame 1", "made.xyz, frame 1"]]


def test_mistakes_are_listed_and_not_raised(make_structure):
    broken = make_structure([1, 8], 3, energy=1.0)
    broken.positions[1] = np.nan
    flat = make_structure([1, 8], 4, pbc=np.ones(3, dtype=bool))
    s = data_statistics([make_structure([1, 8], 0), broken, flat, make_structure([], 5)])
    assert [problem.split(":")[0] for problem in s.problems] == [
        "made.xyz, frame 3",
        "made.xyz, frame 4",
        "made.xyz, frame 5",
    ]


def test_nothing():
    s = data_statistics([])
    assert s.n_structures == 0 and s.neighbours is None and s.force_rms is None


def test_groups(make_structure):
    structures = [make_structure([1], i, config_type="ab"[i % 2]) for i in range(5)]
    assert data_statistics(structures).config_types == {"a": 3, "b": 2}
