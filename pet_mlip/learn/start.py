"""The structures of the first training: the given ones, displaced at random."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from pet_mlip.data.neighbours import neighbour_list
from pet_mlip.data.reading import read_atoms
from pet_mlip.errors import UserError
from pet_mlip.learn.config import FirstConfig, LearnConfig

CLOSEST = 0.5
"""Distance in Å between two atoms below which a structure makes no sense."""
TRIES = 100


def read_start(config: LearnConfig) -> list[Atoms]:
    """Read the structures that simulations begin with, without labels, velocities, constraints.

    Raises:
        UserError: A file cannot be read, or two atoms of a structure coincide.
    """
    found = []
    for source, atoms in read_atoms(config.start):
        if len(atoms) == 0:
            raise UserError(f"{source}: there are no atoms.")
        if is_too_close(atoms):
            raise UserError(f"{source}: two atoms are closer than {CLOSEST} Å.")
        plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        for name in ("charge", "spin_multiplicity", "config_type"):
            if name in atoms.info:
                plain.info[name] = atoms.info[name]
        found.append(plain)
    return found


def first_structures(start: list[Atoms], config: FirstConfig, seed: int) -> list[Atoms]:
    """Displace the given structures, more and more, in turns.

    Args:
        start: The given ones, which come first as they are.
        config: How many there shall be in all, and how far they go.
        seed: Of the displacements.

    Raises:
        UserError: Displacements bring atoms too close together again and again.
    """
    rng = np.random.default_rng(seed)
    found = [atoms.copy() for atoms in start]
    n_displaced = max(config.structures - len(start), 0)
    for k in range(n_displaced):
        part = (k + 1) / n_displaced
        found.append(_displaced(start[k % len(start)], config, part, rng))
    return found


def is_too_close(atoms: Atoms) -> bool:
    """Whether two atoms nearly coincide."""
    pairs, _, _ = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, CLOSEST)
    return pairs.shape[1] > 0


def _displaced(atoms: Atoms, config: FirstConfig, part: float, rng: np.random.Generator) -> Atoms:
    """A copy with so large a part of the largest displacements and strains."""
    for _ in range(TRIES):
        copy = atoms.copy()
        if atoms.pbc.any():
            periodic = atoms.cell.array[atoms.pbc]
            # Onto the space of the periodic directions: nothing else is strained.
            projector = np.linalg.pinv(periodic) @ periodic
            drawn = part * config.strain * rng.standard_normal((3, 3))
            strain = np.eye(3) + projector @ (0.5 * (drawn + drawn.T)) @ projector
            copy.set_cell(atoms.cell.array @ strain)
            copy.positions = atoms.positions @ strain
        copy.positions += part * config.displacement * rng.standard_normal((len(copy), 3))
        if not is_too_close(copy):
            return copy
    raise UserError(
        f"first.displacement, {config.displacement:g} Å, brings atoms closer than {CLOSEST} Å "
        "again and again; make it smaller."
    )
