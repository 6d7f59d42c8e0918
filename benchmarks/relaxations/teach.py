"""Training data: crystals of many elements, labelled by SevenNet-0 (MIT licence, PBE)."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii
from ase.filters import FrechetCellFilter
from ase.neighborlist import neighbor_list
from ase.optimize import FIRE

from benchmarks.command import write_packed
from benchmarks.relaxations.crystals import COLUMNS, aflow_library

METALS = " ".join(COLUMNS[2:12]).split()
PER_SHARD = 20
"""Crystals of one file; a killed run goes on with the next one."""
DISPLACED, OF_LIBRARY = 6, 12
"""Displaced and strained structures of each crystal, and of those that exist."""
STEPS = 12
"""Of each relaxation, whose first, middle and last structures are labels too."""
TEST = 0.06
"""Share of the drawn crystals that are not in the training; those that exist are."""
LARGEST_FORCE = 12.0
"""eV/Å; structures with larger ones are left out."""


def make_data(output: Path, n_crystals: int, processes: int, seed: int) -> None:
    """Make train.xyz.gz and test.xyz.gz; what is there of an interrupted run is kept.

    Args:
        output: Folder.
        n_crystals: With other elements in the place of their own, besides all of the library.
        processes: That work at the same time.
        seed: Of what is drawn.
    """
    shards = output / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    n_library = -(-len(aflow_library()) // PER_SHARD)
    n_drawn = -(-n_crystals // PER_SHARD)
    tasks = [(shards / f"library-{k:05d}.xyz", seed, k, True) for k in range(n_library)]
    tasks += [(shards / f"{seed}-{k:05d}.xyz", seed, k, False) for k in range(n_drawn)]
    left = [task for task in tasks if not task[0].exists()]
    os.environ["OMP_NUM_THREADS"] = "1"  # threads of their own would make the processes slower
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap_unordered(_make_shard, left), 1):
            print(f"{done} of {len(left)} parts", flush=True)
    write_parts([path for path, *_ in tasks], output)


def _make_shard(task: tuple[Path, int, int, bool]) -> None:
    from sevenn.calculator import SevenNetCalculator  # in an environment of its own

    path, seed, number, of_library = task
    rng = np.random.default_rng([seed, number, int(of_library)])
    teacher = SevenNetCalculator("7net-0", device="cpu")
    library = aflow_library()
    if of_library:
        crystals = [one.atoms.copy() for one in library[number * PER_SHARD :][:PER_SHARD]]
    else:
        drawn = rng.integers(len(library), size=PER_SHARD)
        crystals = [substituted(library[k].atoms, rng) for k in drawn]
    labels: list[Atoms] = []
    for place, atoms in enumerate(crystals):
        for found in sample(atoms, teacher, rng, OF_LIBRARY if of_library else DISPLACED):
            found.info["crystal"] = f"{path.stem}-{place}"
            labels.append(found)
    unfinished = path.with_suffix(".part")
    ase.io.write(unfinished, labels, format="extxyz")
    unfinished.replace(path)


def substituted(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Put elements of the same columns in, metals by any metal at times, and scale the cell."""
    there = sorted(set(atoms.symbols))
    while True:
        new: dict[str, str] = {}
        for symbol in there:
            column = next(column.split() for column in COLUMNS if symbol in column.split())
            choices = METALS if symbol in METALS and rng.random() < 0.3 else column
            new[symbol] = symbol if rng.random() < 0.3 else str(rng.choice(choices))
        if len(set(new.values())) == len(there):
            break
    result = atoms.copy()
    result.symbols = [new[symbol] for symbol in atoms.symbols]
    scale = covalent_radii[result.numbers].sum() / covalent_radii[atoms.numbers].sum()
    result.set_cell(result.cell * scale, scale_atoms=True)
    return result


def sample(
    atoms: Atoms, teacher: Calculator, rng: np.random.Generator, displaced: int
) -> list[Atoms]:
    """Relax the crystal, and label structures on the way and displaced ones around its end."""
    atoms.calc = teacher
    found: list[Atoms] = []
    optimizer = FIRE(FrechetCellFilter(atoms), logfile=None, maxstep=0.1)

    def keep() -> None:
        if optimizer.nsteps in (0, STEPS // 2, STEPS):
            found.append(labelled(atoms))

    optimizer.attach(keep)
    optimizer.run(fmax=0.01, steps=STEPS)
    copies = 1 + int(len(atoms) < 8) + int(len(atoms) < 3)
    for _ in range(displaced):
        other = atoms.repeat(tuple(rng.permutation([copies, 1, 1]))) if copies > 1 else atoms.copy()
        strain = rng.normal(scale=rng.uniform(0.0, 0.05), size=(3, 3))
        change = np.eye(3) * (1 + rng.uniform(-0.05, 0.06)) + (strain + strain.T) / 2
        other.set_cell(other.cell @ change, scale_atoms=True)
        other.positions += rng.normal(scale=rng.uniform(0.01, 0.25), size=other.positions.shape)
        other.calc = teacher
        found.append(labelled(other))
    return [one for one in found if sensible(one)]


def labelled(atoms: Atoms) -> Atoms:
    """Return a copy with energy, forces and stress."""
    results = {
        "energy": float(atoms.get_potential_energy()),
        "forces": atoms.get_forces().astype(float),
        "stress": atoms.get_stress().astype(float),
    }
    copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    copy.calc = SinglePointCalculator(copy, **results)
    return copy


def sensible(atoms: Atoms) -> bool:
    """Whether a teacher that has seen relaxations only can be believed."""
    i, j, distance = neighbor_list("ijd", atoms, 3.0)
    close = 0.6 * (covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]])
    forces = np.linalg.norm(atoms.get_forces(), axis=1)
    return bool(
        np.isfinite(forces).all() and (distance > close).all() and max(forces) < LARGEST_FORCE
    )


def write_parts(shards: list[Path], output: Path) -> None:
    """Share out the structures by crystal."""
    rng = np.random.default_rng(0)
    parts: dict[str, list[Atoms]] = {"train": [], "test": []}
    part, crystal = "", ""
    for path in shards:
        for atoms in ase.io.read(path, ":"):
            if atoms.info["crystal"] != crystal:
                crystal = atoms.info["crystal"]
                place = 1.0 if path.name.startswith("library") else rng.random()
                part = "test" if place < TEST else "train"
            parts[part].append(atoms)
    for name, structures in parts.items():
        write_packed(output / f"{name}.xyz.gz", structures)
        print(f"{name}: {len(structures)} structures")
