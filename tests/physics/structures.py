"""Structures of every kind, symmetric ones among them."""

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule


def rattled(atoms, size=0.08, seed=0):
    atoms.rattle(size, seed=seed)
    return atoms


def left_handed():
    atoms = rattled(bulk("Si", cubic=True))
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell.array[[1, 0, 2]], pbc=True)


def water_box():
    rng = np.random.default_rng(0)
    box = Atoms(cell=[6.2, 6.2, 6.2], pbc=True)
    for corner in np.ndindex(2, 2, 2):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3), center="COM")
        water.positions += 3.1 * np.array(corner) - water.get_center_of_mass()
        box += water
    return box


def wire():
    positions = [[0.0, 0.1, 0], [1.3, 0.9, 0.2], [2.5, 0, 0.8]]
    return Atoms("CCO", positions, cell=[3.9, 0, 0], pbc=[True, False, False])


def supercell(atoms, repeats):
    return atoms * repeats


STRUCTURES = {
    "ethanol": lambda: rattled(molecule("CH3CH2OH")),
    "methane, perfect": lambda: molecule("CH4"),
    "benzene, perfect": lambda: molecule("C6H6"),
    "CO2": lambda: molecule("CO2"),
    "C2H2": lambda: molecule("C2H2"),
    "dimer": lambda: molecule("CO"),
    "far dimer": lambda: Atoms("CO", [[0, 0, 0], [0, 0, 3.8]]),
    "isolated atom": lambda: Atoms("O"),
    "three isolated atoms": lambda: Atoms("OHC", [[0, 0, 0], [9, 0, 0], [0, 12, 0]]),
    "silicon, perfect": lambda: bulk("Si", cubic=True),
    "silicon, rattled": lambda: rattled(bulk("Si", cubic=True)),
    "silicon, primitive": lambda: bulk("Si"),
    "copper, one atom": lambda: bulk("Cu", "fcc", a=3.6),
    "copper, rattled": lambda: rattled(bulk("Cu", "fcc", a=3.6, cubic=True)),
    "skewed": lambda: rattled(
        Atoms("SiC", [[0, 0, 0], [1.2, 1.1, 1.7]], cell=[[3, 0, 0], [2.9, 3, 0], [1, 2, 3]], pbc=1)
    ),
    "left-handed": left_handed,
    "water": water_box,
    "slab": lambda: rattled(fcc111("Cu", (1, 2, 2), a=3.6, vacuum=5.0), 0.05),
    "slab without c": lambda: rattled(fcc111("Cu", (1, 1, 3), a=3.6), 0.05),
    "wire": wire,
    "linear chain": lambda: Atoms(
        "CO", [[0, 0, 0], [1.4, 0, 0]], cell=[3.1, 0, 0], pbc=[True, False, False]
    ),
}
