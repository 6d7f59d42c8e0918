"""What is evaluated: a molecule, water, silicon and copper, all built here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read

from pet_mlip.errors import UserError

ELEMENTS = [1, 6, 8, 14, 29]
SPACING = 3.1
"""Of the water molecules in Å, which gives 1 g/cm^3."""
RATTLE = 0.05
"""Standard deviation of the displacements in Å."""


@dataclass(frozen=True)
class BenchStructure:
    """A structure by its name on the command line."""

    name: str
    title: str
    groups: tuple[str, ...]
    """Names for several structures at once: compare, ecse, growth, large."""
    build: Callable[[], Atoms]


def aspirin() -> Atoms:
    """21 atoms, C9H8O4: a minimum of GFN2-xTB, rattled."""
    atoms = read(Path(__file__).parent / "aspirin.xyz")
    assert isinstance(atoms, Atoms)
    atoms.rattle(RATTLE, seed=1)
    return atoms


def ethanol() -> Atoms:
    """9 atoms, rattled."""
    atoms = molecule("CH3CH2OH")
    atoms.rattle(RATTLE, seed=1)
    return atoms


def water(n_molecules: int) -> Atoms:
    """Randomly turned molecules, near the sites of a cubic lattice, in a cubic box.

    Where the number is no cube, random sites of the next larger lattice stay empty.
    """
    rng = np.random.default_rng(0)
    side = int(np.ceil(n_molecules ** (1 / 3) - 1e-9))
    length = SPACING * n_molecules ** (1 / 3)
    sites = np.array(list(np.ndindex(side, side, side)))
    if len(sites) > n_molecules:
        sites = sites[np.sort(rng.choice(len(sites), n_molecules, replace=False))]
    one = molecule("H2O")
    shape = one.positions - one.get_center_of_mass()
    turned = shape @ random_rotations(n_molecules, rng)
    centres = sites * length / side + 0.1 * rng.normal(size=(n_molecules, 3))
    positions = (turned + centres[:, None]).reshape(-1, 3)
    numbers = np.tile(one.numbers, n_molecules)
    return Atoms(numbers, positions, cell=length * np.eye(3), pbc=True)


def random_rotations(n: int, rng: np.random.Generator) -> np.ndarray:
    """Orthogonal matrices, (n, 3, 3)."""
    q, r = np.linalg.qr(rng.normal(size=(n, 3, 3)))
    return np.asarray(q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None])


def crystal(symbol: str, repeats: int) -> Atoms:
    """Rattled cubic cells."""
    atoms = bulk(symbol, cubic=True) * (repeats, repeats, repeats)
    atoms.rattle(RATTLE, seed=1)
    return atoms


def catalogue() -> dict[str, BenchStructure]:
    """All structures by name, from small to large."""
    found = [
        BenchStructure("ethanol", "ethanol", ("ecse",), ethanol),
        BenchStructure("aspirin", "aspirin", ("compare",), aspirin),
        _crystal("copper-32", "copper", "Cu", 2, ("ecse",)),
        _water(21, ("compare",)),
        _crystal("silicon-64", "silicon", "Si", 2, ("ecse",)),
        _water(36, ("growth",)),
        _water(64, ("compare", "ecse", "growth")),
        _crystal("silicon-216", "silicon", "Si", 3, ("compare",)),
        _crystal("silicon-512", "silicon", "Si", 4, ("compare",)),
        _water(216, ("growth",)),
        _water(512, ("growth",)),
        _water(1331, ("compare", "growth")),
        _water(3375, ("growth",)),
        _water(1728, ("large",)),
        _water(9261, ("large",)),
        _water(32768, ("large",)),
    ]
    return {structure.name: structure for structure in found}


def choose(names: str) -> list[BenchStructure]:
    """The structures that a list of names and groups with commas between stands for.

    Raises:
        UserError: There is no such structure or group.
    """
    known = catalogue()
    groups = {"all"} | {group for s in known.values() for group in s.groups}
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known and name not in groups:
            raise UserError(
                f"--structures {name} is not known; use {', '.join(sorted(groups))} or some of "
                f"{', '.join(known)}."
            )
    return [
        structure
        for structure in known.values()
        if structure.name in wanted
        or any(group in wanted for group in structure.groups)
        or ("all" in wanted and "large" not in structure.groups)
    ]


def _water(n_molecules: int, groups: tuple[str, ...]) -> BenchStructure:
    name = f"water-{3 * n_molecules}"
    return BenchStructure(name, "water", groups, lambda: water(n_molecules))


def _crystal(
    name: str, title: str, symbol: str, repeats: int, groups: tuple[str, ...]
) -> BenchStructure:
    return BenchStructure(name, title, groups, lambda: crystal(symbol, repeats))
