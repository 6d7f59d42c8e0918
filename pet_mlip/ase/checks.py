"""What an exported model cannot evaluate, said in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from pet_mlip.data.neighbours import neighbour_list
from pet_mlip.errors import UserError

State = tuple[int, int]
"""Total charge and spin multiplicity."""
NEUTRAL: State = (0, 1)
STATE_KEYS = {"charge": ("charge",), "spin multiplicity": ("spin_multiplicity", "spin")}

# Closer than this, two atoms are one atom given twice.
COINCIDENT = 1e-6


def check_atoms(atoms: Atoms, species: Sequence[int], where: str = "the structure") -> None:
    """Raise a UserError if the model does not know an element or a number is not finite.

    Args:
        atoms: The structure.
        species: Atomic numbers that the model knows.
        where: What to call the structure in the message.
    """
    known = np.isin(atoms.numbers, species)
    if not known.all():
        atom = int(np.argmin(known))
        names = ", ".join(chemical_symbols[z] for z in species)
        raise UserError(
            f"Atom {atom} of {where} is {chemical_symbols[atoms.numbers[atom]]}, which the model "
            f"does not know: it was trained for {names}."
        )
    finite = np.isfinite(atoms.positions).all(axis=1)
    if not finite.all():
        atom = int(np.argmin(finite))
        raise UserError(
            f"The position of atom {atom} of {where} is not finite; if this happened in a "
            "simulation, its time step is too long or its starting structure is far from relaxed."
        )
    if not np.isfinite(atoms.cell.array).all():
        raise UserError(f"The cell of {where} is not finite.")


def electronic_state(atoms: Atoms, hypers: Mapping[str, Any], where: str) -> State:
    """Charge and spin multiplicity 2S + 1 in ``atoms.info``; `NEUTRAL` where there are none.

    Args:
        atoms: The structure.
        hypers: The model's hyperparameters, with the largest values that it knows.
        where: What to call the structure in the message.

    Raises:
        UserError: A value is no whole number, or one that the model does not know.
    """
    largest_charge, largest_spin = hypers["max_charge"], hypers["max_spin_multiplicity"]
    limits = {"charge": (-largest_charge, largest_charge), "spin multiplicity": (1, largest_spin)}
    state = dict(zip(STATE_KEYS, NEUTRAL, strict=True))
    for quantity, keys in STATE_KEYS.items():
        key = next((key for key in keys if atoms.info.get(key) is not None), None)
        if key is None:
            continue
        low, high = limits[quantity]
        value = np.asarray(atoms.info[key])
        if value.size != 1 or value.item() not in range(low, high + 1):
            raise UserError(
                f"atoms.info['{key}'] of {where} is {atoms.info[key]!r}, but the model knows whole "
                f"numbers from {low} to {high}."
            )
        state[quantity] = int(value.item())
    return state["charge"], state["spin multiplicity"]


def explain_not_finite(atoms: Atoms, where: str = "the structure") -> UserError:
    """The error to raise when the model returned NaN or infinity for a structure."""
    index, _, vectors = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, 0.1)
    distances = np.linalg.norm(vectors, axis=1)
    if len(distances) and distances.min() < COINCIDENT:
        i, j = index[:, int(np.argmin(distances))]
        return UserError(f"Atoms {i} and {j} of {where} are at the same place; remove one of them.")
    return UserError(
        f"The model's prediction for {where} is not finite; check its geometry, and evaluate it "
        'with dtype="float64".'
    )


def check_indices(indices: Sequence[int] | None, n_atoms: int) -> NDArray[np.int64]:
    """Return the places of atoms, none of them twice; raise a UserError if that is not so."""
    if indices is None:
        return np.arange(n_atoms)
    chosen = np.asarray(indices)
    if chosen.dtype == bool and chosen.shape == (n_atoms,):
        chosen = np.flatnonzero(chosen)
    if chosen.ndim != 1 or (chosen.size > 0 and not np.issubdtype(chosen.dtype, np.integer)):
        raise UserError("indices is a list of places of atoms, such as [0, 1].")
    places = np.where(chosen < 0, chosen + n_atoms, chosen).astype(np.int64)
    if ((places < 0) | (places >= n_atoms)).any() or len(np.unique(places)) < len(places):
        raise UserError(f"indices must be different places among the {n_atoms} atoms.")
    return places


def check_number(name: str, value: Any, what: str, whole: bool = False, smallest: int = 0) -> None:
    """Raise a UserError if an argument is no number of a kind, or too small."""
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not is_number or not smallest <= float(value) < math.inf:
        raise UserError(f"{name} is {what}, not {value!r}.")
