"""What a training has learned from, so that a continuation is refused other data.

Geometry and labels of each structure are hashed apart. Names, places and dates of files do not
count, nor the format they are in: only what was read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from pet_mlip.data.structure import Structure
from pet_mlip.errors import UserError
from pet_mlip.train.output import LOG
from pet_mlip.train.setup import DataSets

Fingerprint = dict[str, Any]
NAMED = 3
"""Structures that a message names."""


def fingerprint(data: DataSets) -> Fingerprint:
    """Hashes of both data sets and energies of isolated atoms, as a checkpoint holds them."""
    return {
        "training": hash_structures(data.training.structures),
        "validation": hash_structures(data.validation.structures),
        "isolated": {int(z): float(energy) for z, energy in data.isolated.items()},
    }


def hash_structures(structures: Sequence[Structure]) -> dict[str, Tensor]:
    """Hashes of the geometry and of the labels of each structure, (S,) int64, in their order."""
    geometry = [hash_values(s.species, s.positions, s.cell, s.pbc) for s in structures]
    labels = [
        hash_values(
            *(s.energy, s.forces, s.stress, s.charge, s.spin_multiplicity),
            *(values for _, values in sorted({**s.results, **s.atomic_results}.items())),
        )
        for s in structures
    ]
    return {
        "geometry": torch.tensor(geometry, dtype=torch.int64),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def hash_values(*values: Any) -> int:
    """A number that depends on every bit of some arrays, numbers, or None."""
    digest = hashlib.blake2b(digest_size=8)
    for value in values:
        array = np.empty(0) if value is None else np.ascontiguousarray(value, dtype=np.float64)
        digest.update(f"{value is None}{array.shape}".encode())
        digest.update((array + 0.0).tobytes())  # -0 is 0
    return int.from_bytes(digest.digest(), "little", signed=True)


def check_same_data(data: DataSets, before: Fingerprint | None) -> None:
    """Refuse data that differ from those of the training to be resumed.

    Args:
        data: What was read now.
        before: From the checkpoint; None if it has none.

    Raises:
        UserError: What differs.
    """
    if before is None:
        LOG.warning(
            "The checkpoint does not say what it was trained on: make sure that the data are the "
            "same."
        )
        return
    now = fingerprint(data)
    changes = [
        *describe_changes("training", before, now, data.training.structures),
        *describe_changes("validation", before, now, data.validation.structures),
    ]
    if before["isolated"] != now["isolated"]:
        known = sorted({*before["isolated"], *now["isolated"]})
        other = [z for z in known if before["isolated"].get(z) != now["isolated"].get(z)]
        names = ", ".join(chemical_symbols[z] for z in other)
        changes.append(f"the energies of isolated atoms of {names} are others")
    if changes:
        raise UserError(
            f"The data are not those of the training to resume: {'; '.join(changes)}. Give it the "
            "data it began with, or start a new training in another --output (with "
            "training.init_from to start from its weights)."
        )


def describe_changes(
    name: str, before: Fingerprint, now: Fingerprint, structures: Sequence[Structure]
) -> list[str]:
    """What changed in one of the data sets, in words."""
    old, new = before[name], now[name]
    n_old, n_new = len(old["geometry"]), len(new["geometry"])
    if n_old != n_new:
        return [f"the {name} set has {n_new} structures and had {n_old}"]
    moved = old["geometry"] != new["geometry"]
    relabelled = (old["labels"] != new["labels"]) & ~moved
    if moved.any() and torch.equal(old["geometry"].sort().values, new["geometry"].sort().values):
        return [f"the structures of the {name} set are in another order"]
    return [
        f"{what} of {int(changed.sum())} of the {n_new} {name} structures changed "
        f"({name_structures(changed, structures)})"
        for what, changed in (("species, positions or cells", moved), ("labels", relabelled))
        if changed.any()
    ]


def name_structures(which: Tensor, structures: Sequence[Structure]) -> str:
    """The first of the chosen structures, and whether there are more."""
    places = torch.nonzero(which).flatten().tolist()
    names = "; ".join(str(structures[k].source) for k in places[:NAMED])
    return names + (" and others" if len(places) > NAMED else "")
