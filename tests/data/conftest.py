"""Small data sets made with ASE's own potentials."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from pet_mlip.data.structure import Source, Structure


def frozen(atoms, calculator=None):
    """The atoms with the results of a calculator as constants."""
    atoms = atoms.copy()
    atoms.calc = calculator or EMT()
    atoms.get_potential_energy()
    atoms.get_forces()
    results = {name: atoms.calc.results[name] for name in ("energy", "forces")}
    if atoms.pbc.all():
        results["stress"] = atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.fixture(scope="session")
def crystals():
    """Six rattled copper-gold cells with energy, forces and stress."""
    made = []
    for seed in range(6):
        atoms = bulk("Cu", cubic=True, a=3.6 + 0.05 * seed)
        atoms.symbols[: seed % 3] = "Au"
        atoms.rattle(0.05, seed=seed)
        made.append(frozen(atoms))
    return made


@pytest.fixture(scope="session")
def molecules():
    """Rattled molecules without a cell, with energy and forces."""
    made = []
    for seed, name in enumerate(["CH3CH2OH", "H2O", "CH4", "CO2", "C6H6"]):
        atoms = molecule(name)
        atoms.rattle(0.05, seed=seed)
        made.append(frozen(atoms))
    return made


@pytest.fixture
def make_structure():
    """A structure with random positions and chosen labels."""

    def make(symbols_numbers, seed=0, **labels):
        species = np.array(symbols_numbers, dtype=np.int64)
        generator = np.random.default_rng(seed)
        grid = np.stack(np.unravel_index(np.arange(len(species)), (4, 4, 4)), axis=1)
        positions = 1.5 * grid + generator.uniform(-0.2, 0.2, (len(species), 3))
        labels.setdefault("cell", np.zeros((3, 3)))
        labels.setdefault("pbc", np.zeros(3, dtype=bool))
        labels.setdefault("source", Source("made.xyz", seed))
        return Structure(species, positions, **labels)

    return make
