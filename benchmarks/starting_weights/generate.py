"""The data set: structures of random molecules with labels, in parts that a killed run keeps."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from pathlib import Path

import ase.io
import numpy as np

from benchmarks.command import write_packed

PER_SHARD = 200
"""Geometries of one file; a killed run goes on with the next one."""
VALIDATION, TEST = 0.02, 0.03
"""Share of the molecules that no other part has."""
SMALL = 6
"""Fewest atoms of a molecule that may be held out: everybody needs the smaller ones."""


def make_data(output: Path, n_structures: int, processes: int, seed: int) -> None:
    """Make train, validation and test.xyz.gz; what is there of an interrupted run is kept."""
    shards = output / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    n_shards = -(-n_structures // (2 * PER_SHARD))
    tasks = [(shards / f"{seed}-{k:05d}.xyz", seed, k) for k in range(n_shards)]
    left = [task for task in tasks if not task[0].exists()]
    # Threads of their own would make the processes slower.
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap_unordered(_make_shard, left), 1):
            print(f"{done} of {len(left)} parts", flush=True)
    write_parts([path for path, _, _ in tasks], output)


def _make_shard(task: tuple[Path, int, int]) -> None:
    from benchmarks.starting_weights.label import label  # tblite and RDKit are needed here only
    from benchmarks.starting_weights.sample import draw_geometry

    path, seed, number = task
    rng = np.random.default_rng([seed, number])
    found = []
    for _ in range(PER_SHARD):
        smiles, numbers, positions = draw_geometry(rng)
        found += label(numbers, positions, smiles)
    unfinished = path.with_suffix(".part")
    ase.io.write(unfinished, found, format="extxyz")
    unfinished.replace(path)


def write_parts(shards: list[Path], output: Path) -> None:
    """Share out the structures by molecule, each dimer being a molecule of its own."""
    parts: dict[str, list[ase.Atoms]] = {"train": [], "validation": [], "test": []}
    for path in shards:
        for atoms in ase.io.read(path, ":"):
            digest = hashlib.sha256(atoms.info["smiles"].encode()).digest()
            place = int.from_bytes(digest[:8], "big") / 2**64
            small = len(atoms) < SMALL
            part = "test" if place < TEST else "validation" if place < TEST + VALIDATION else ""
            parts["train" if small or not part else part].append(atoms)
    for name, structures in parts.items():
        write_packed(output / f"{name}.xyz.gz", structures)
        molecules = {atoms.info["smiles"] for atoms in structures}
        print(f"{name}: {len(structures)} structures of {len(molecules)} molecules and dimers")
