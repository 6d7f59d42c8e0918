"""Mistakes in data, each told in one sentence with file and frame before any work is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from pet_mlip.data.neighbours import complete_cell, neighbour_list
from pet_mlip.data.structure import Structure
from pet_mlip.errors import UserError

# Frames named in a message about many structures.
NAMED_FRAMES = 8


@dataclass(frozen=True)
class DataLimits:
    """Beyond these, numbers are taken for mistakes."""

    max_force: float = 300.0
    """Norm of a force in eV/Å; random methane at 0.5 Å reaches 150."""
    min_distance: float = 0.3
    """Between two atoms, periodic images included, in Å."""


DEFAULT_LIMITS = DataLimits()


def structure_problem(structure: Structure, limits: DataLimits = DEFAULT_LIMITS) -> str | None:
    """The first mistake in a structure as half a sentence, or None."""
    return next(_problems(structure, limits), None)


def check_structures(
    structures: Iterable[Structure], limits: DataLimits = DEFAULT_LIMITS
) -> list[Structure]:
    """The structures as a list, or one UserError for the mistakes in all of them."""
    good: list[Structure] = []
    bad: list[tuple[Structure, str]] = []
    for structure in structures:
        problem = structure_problem(structure, limits)
        if problem is None:
            good.append(structure)
        else:
            bad.append((structure, problem))
    if bad:
        raise UserError(_tell(bad))
    return good


def check_species(training: Sequence[Structure], other: Sequence[Structure], name: str) -> None:
    """Raise UserError if a structure of another set has an element that training lacks."""
    check_known_species({int(z) for s in training for z in s.species}, other, name)


def check_known_species(
    known: Iterable[int], structures: Sequence[Structure], name: str = ""
) -> None:
    """Raise UserError for the first structure with an element that is not known.

    Args:
        known: Atomic numbers, of the training set or of a model.
        structures: What to check.
        name: What the structures are, e.g. "validation".
    """
    known = set(known)
    for structure in structures:
        unknown = sorted({int(z) for z in structure.species} - known)
        if unknown:
            role = f" ({name})" if name else ""
            raise UserError(
                f"{structure.source}{role}: contains {symbols(unknown)}, but the training "
                f"structures only contain {symbols(known)}."
            )


def symbols(species: Iterable[int]) -> str:
    """Chemical symbols, by atomic number: "H, C, O"."""
    return ", ".join(chemical_symbols[z] for z in sorted(species))


def _tell(bad: list[tuple[Structure, str]]) -> str:
    (first, problem), *rest = bad
    if not rest:
        return f"{first.source}: {problem}."
    named = ", ".join(
        str(s.source.frame if s.source.file == first.source.file else s.source)
        for s, _ in rest[:NAMED_FRAMES]
    )
    more = ", ..." if len(rest) > NAMED_FRAMES else ""
    return (
        f"{first.source}: {problem}; {len(rest)} more structures have mistakes too "
        f"(frames {named}{more})."
    )


def _problems(structure: Structure, limits: DataLimits) -> Iterator[str]:
    if structure.n_atoms == 0:
        yield "contains no atoms"
        return
    yield from _not_finite(structure)
    yield from _bad_species(structure)
    yield from _bad_cell(structure)
    yield from _too_close(structure, limits.min_distance)
    yield from _absurd_forces(structure, limits.max_force)


def _not_finite(structure: Structure) -> Iterator[str]:
    if not np.isfinite(structure.cell).all():
        yield "the cell is not finite (NaN or infinite)"
    for name in ("positions", "forces"):
        values = getattr(structure, name)
        if values is None:
            continue
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            what = "position" if name == "positions" else "force"
            yield f"the {what} of atom {int(np.argmin(finite))} is not finite (NaN or infinite)"
    if structure.energy is not None and not np.isfinite(structure.energy):
        yield "the energy is not finite (NaN or infinite)"
    if structure.stress is not None and not np.isfinite(structure.stress).all():
        yield "the stress is not finite (NaN or infinite)"
    for name, values in {**structure.results, **structure.atomic_results}.items():
        if not np.isfinite(values).all():
            yield f"{name} is not finite (NaN or infinite)"


def _bad_species(structure: Structure) -> Iterator[str]:
    strange = (structure.species < 1) | (structure.species >= len(chemical_symbols))
    if strange.any():
        atom = int(np.argmax(strange))
        yield f"atom {atom} has the atomic number {structure.species[atom]}, which is no element"


def _bad_cell(structure: Structure) -> Iterator[str]:
    try:
        complete_cell(structure.cell, structure.pbc)
    except UserError as error:
        sentence = str(error).rstrip(".")
        yield sentence[0].lower() + sentence[1:]


def _too_close(structure: Structure, min_distance: float) -> Iterator[str]:
    (centre, neighbour), shifts, vectors = neighbour_list(
        structure.positions, structure.cell, structure.pbc, min_distance
    )
    if len(vectors) == 0:
        return
    distances = np.linalg.norm(vectors, axis=1)
    edge = int(np.argmin(distances))
    other = f"atom {neighbour[edge]}"
    if shifts[edge].any():
        other = f"a periodic image of {other}"
    yield (
        f"atom {centre[edge]} and {other} are {distances[edge]:.3g} Å apart "
        f"(duplicate or overlapping atoms; the limit is {min_distance:g} Å)"
    )


def _absurd_forces(structure: Structure, max_force: float) -> Iterator[str]:
    if structure.forces is None:
        return
    norms = np.linalg.norm(structure.forces, axis=1)
    atom = int(np.argmax(norms))
    if norms[atom] > max_force:
        yield (
            f"the force on atom {atom} is {norms[atom]:.4g} eV/Å, beyond the limit of "
            f"{max_force:g} eV/Å; remove the structure, correct the units, or raise max_force "
            "if it is meant"
        )
