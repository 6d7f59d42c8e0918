"""Results beside the energy: what a model may be asked for by name.

A name, a unit, a rank and whether labels are of atoms or of structures is all there is to declare.
The network gets a readout of that rank, the loss a term, evaluation a row, and the exported file a
line, from which the ASE calculator and the LAMMPS pair style know the result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

Rank = Literal[0, 1, 2]
SHAPES: dict[int, tuple[int, ...]] = {0: (), 1: (3,), 2: (3, 3)}
"""Of one atom's, or one structure's, value."""
RESERVED = frozenset(
    {
        *("energy", "energies", "free_energy", "energy_per_atom", "forces", "force"),
        *("stress", "stresses", "virial", "virials", "numbers", "positions", "n_frames", "species"),
        *("cell", "pbc", "charge", "spin", "spin_multiplicity", "config_type", "structures"),
        *("energy_uncertainty", "energies_uncertainty", "forces_uncertainty", "force_uncertainty"),
        *("loss", "pos", "masses", "tags", "momenta", "velocities", "symbols", "id", "index"),
    }
)
"""Names that mean something else in files, error tables or results."""


class Result(BaseModel):
    """A result that a model predicts beside the energy: what its labels and values are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: Rank = Field(0, description="0: scalar, 1: vector, 2: symmetric tensor.")
    per_atom: bool = Field(
        False, description="Whether labels are of atoms; else of structures, sums over atoms."
    )
    unit: str = Field("", description="Of the labels, as they stand in the files.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one value: (), (3,) or (3, 3)."""
        return SHAPES[self.rank]


KNOWN: dict[str, Result] = {
    "dipole": Result(rank=1, unit="e*angstrom"),
    "polarizability": Result(rank=2, unit="angstrom^3"),
    "charges": Result(rank=0, per_atom=True, unit="e"),
    "magmoms": Result(rank=0, per_atom=True, unit="mu_B"),
}
"""Results that need not be described: ASE's names where it has them."""


WORDS: dict[str | None, str] = {
    "rank": "rank, which is 0 (scalar), 1 (vector) or 2 (symmetric tensor)",
    "per_atom": "true or false",
    "unit": "text",
    None: "key of a result, which are rank, per_atom and unit",
}


def describe(value: Any) -> Any:
    """Complete what a user wrote: names alone, or names with what differs from `KNOWN`.

    Args:
        value: A name, a list of names, or a mapping of names to rank, per_atom and unit.

    Returns:
        A `Result` for each name.

    Raises:
        ValueError: A name is taken or no name, or nobody knows what it means.
    """
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        if not all(isinstance(name, str) for name in value):
            raise ValueError("a list takes names only; with more than names, write name: {...}")
        value = dict.fromkeys(value)
    if not isinstance(value, Mapping):
        return value
    found: dict[str, Any] = {}
    for name, given in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            raise ValueError(f"{name!r} is no name: letters, digits and underscores make one")
        if name.lower() in RESERVED:
            raise ValueError(f"{name} means something else already; choose another name")
        if isinstance(given, Result):
            found[name] = given
            continue
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"{name} takes rank, per_atom and unit")
        if name not in KNOWN and "rank" not in (given or {}):
            raise ValueError(
                f"{name} is none of {', '.join(KNOWN)}, so its rank must be given, as in "
                f"{name}: {{rank: 1, unit: e*angstrom}}"
            )
        usual = KNOWN[name].model_dump() if name in KNOWN else {}
        if isinstance((given or {}).get("rank"), bool):
            raise ValueError(f"{name}: rank is a number, not true or false")
        try:
            found[name] = Result(**{**usual, **(given or {})})
        except ValidationError as error:
            details = error.errors()[0]
            key = ".".join(map(str, details["loc"]))
            raise ValueError(
                f"{name}: {key} {details['input']!r} is no {WORDS.get(key, WORDS[None])}"
            ) from None
    return found


Results = Annotated[
    dict[str, Result],
    BeforeValidator(describe, json_schema_input_type=str | list[str] | dict[str, Result | None]),
]
"""Results by name."""
