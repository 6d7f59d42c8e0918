"""The files that all contestants read: the same structures, the same names of labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from benchmarks.learning.sets import LearningSet
from pet_mlip.data.reading import read_atoms
from pet_mlip.errors import UserError
from pet_mlip.files import check_writable

ENERGY, FORCES, STRESS = "REF_energy", "REF_forces", "REF_stress"
SET_ASIDE = 0.1
"""Part of the training structures that is for validation where there is no file for it."""
TRIAL_ATOMS = 1500
"""Atoms in a trial, at least; it has four batches, at least."""


@dataclass(frozen=True)
class Prepared:
    """The files of one set, and what contestants have to know of them."""

    folder: Path
    train: Path
    validation: Path
    tests: dict[str, Path]
    n_train: int
    n_validation: int
    n_trial: int
    n_trial_validation: int
    scale: float
    """Atoms in the training set over those in the trial."""
    baseline: dict[int, float]
    """Energy of each element, by least squares."""
    has_stress: bool

    @property
    def for_trial(self) -> Prepared:
        """The same for a trial: a few structures, and a batch of them for its validation."""
        return replace(
            self,
            train=self.folder / "trial.xyz",
            validation=self.folder / "trial_validation.xyz",
            n_train=self.n_trial,
            n_validation=self.n_trial_validation,
        )


def prepare(
    one: LearningSet, data: Path, folder: Path, seed: int, most: int | None = None
) -> Prepared:
    """Write the files of a set.

    Args:
        one: The set.
        data: The data root.
        folder: Where to write.
        seed: Of the split, where one has to be made, of the trial, and of a smaller set.
        most: Structures to train on, at most; the validation set shrinks with them.

    Raises:
        UserError: A structure has no energy or forces, or the folder cannot be written.
    """
    check_writable(folder)
    train = read(data / one.train)
    if one.validation is None:
        train, validation = split(train, seed)
    else:
        validation = read(data / one.validation)
    if most is not None and len(train) > most:
        share = most / len(train)
        train = _draw(train, most, seed)
        validation = _draw(validation, max(1, round(share * len(validation))), seed)
    tests = {name: read(data / file) for name, file in one.tests.items()}
    if one.apart is not None:
        tests = _separate(tests, one.apart)
    trial = _some(train, one.batch, seed)
    trial_validation = validation[: one.batch]
    written = {
        "train": train,
        "validation": validation,
        "trial": trial,
        "trial_validation": trial_validation,
    }
    for name, structures in written.items():
        ase.io.write(folder / f"{name}.xyz", structures, format="extxyz")
    paths = {}
    for name, structures in tests.items():
        paths[name] = folder / f"test_{name}.xyz"
        ase.io.write(paths[name], structures, format="extxyz")
    return Prepared(
        folder=folder,
        train=folder / "train.xyz",
        validation=folder / "validation.xyz",
        tests=paths,
        n_train=len(train),
        n_validation=len(validation),
        n_trial=len(trial),
        n_trial_validation=len(trial_validation),
        scale=sum(map(len, train)) / sum(map(len, trial)),
        baseline=baseline(train),
        has_stress=any(STRESS in atoms.info for atoms in train),
    )


def read(path: Path) -> list[Atoms]:
    """Structures with their labels under the common names, and without anything else.

    Raises:
        UserError: One has no energy or forces.
    """
    structures = []
    for number, atoms in enumerate(atoms for _, atoms in read_atoms(path)):
        labels = {} if atoms.calc is None else atoms.calc.results
        if not {"energy", "forces"} <= set(labels):
            raise UserError(f"Structure {number} of {path} has no energy or no forces.")
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        if "config_type" in atoms.info:
            bare.info["config_type"] = str(atoms.info["config_type"])
        bare.info[ENERGY] = float(labels["energy"])
        bare.arrays[FORCES] = np.array(labels["forces"], dtype=float)
        if "stress" in labels:
            bare.info[STRESS] = atoms.get_stress(voigt=False)
        structures.append(bare)
    return structures


def split(structures: list[Atoms], seed: int) -> tuple[list[Atoms], list[Atoms]]:
    """Set a random tenth aside, at least one; both parts keep their order."""
    n_aside = max(1, round(SET_ASIDE * len(structures)))
    aside = set(np.random.default_rng(seed).permutation(len(structures))[:n_aside].tolist())
    kept = [atoms for k, atoms in enumerate(structures) if k not in aside]
    return kept, [atoms for k, atoms in enumerate(structures) if k in aside]


def _draw(structures: list[Atoms], number: int, seed: int) -> list[Atoms]:
    """Draw some of the structures; they keep their order."""
    chosen = np.random.default_rng(seed).permutation(len(structures))[:number]
    return [structures[k] for k in sorted(chosen.tolist())]


def baseline(structures: list[Atoms]) -> dict[int, float]:
    """Energies of the elements that fit the total energies best, the smallest such ones."""
    elements = sorted({int(z) for atoms in structures for z in atoms.numbers})
    counts = np.array([[(atoms.numbers == z).sum() for z in elements] for atoms in structures])
    energies = np.array([atoms.info[ENERGY] for atoms in structures])
    found = np.linalg.lstsq(counts.astype(float), energies, rcond=None)[0]
    return dict(zip(elements, found.tolist(), strict=True))


def _some(structures: list[Atoms], batch: int, seed: int) -> list[Atoms]:
    """Whole batches of random structures for a trial."""
    order = np.random.default_rng(seed).permutation(len(structures))
    atoms = np.cumsum([len(structures[k]) for k in order])
    enough = int(np.searchsorted(atoms, TRIAL_ATOMS)) + 1
    n_batches = max(4, -(-enough // batch))
    return [structures[k] for k in order[: n_batches * batch]]


def _separate(tests: dict[str, list[Atoms]], config_type: str) -> dict[str, list[Atoms]]:
    """Make a test set of its own of one kind of structures."""
    found: dict[str, list[Atoms]] = {}
    for name, structures in tests.items():
        found[name] = [a for a in structures if a.info.get("config_type") != config_type]
        found[config_type] = [a for a in structures if a.info.get("config_type") == config_type]
    return {name: structures for name, structures in found.items() if structures}
