"""Composition baseline: an energy per atom of each element that the network need not learn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from rich.table import Table

from pet_mlip.data.checks import symbols
from pet_mlip.data.neighbours import neighbour_list
from pet_mlip.data.structure import Structure
from pet_mlip.errors import UserError

Floats = NDArray[np.float64]

# A single atom is isolated if its next periodic image is further away than this, in Å.
ISOLATION = 6.0
# Energies per atom, less the baseline, beyond this point to a baseline of another method or unit.
SUSPICIOUS_RESIDUAL = 5.0


@dataclass(frozen=True)
class Baseline:
    """Energy per atom of each element and where it comes from."""

    energies: dict[int, float]
    """eV per atom, by atomic number."""
    origins: dict[int, str]
    """"given", "isolated atom", "isolated atom, shifted" or "least squares", by atomic number."""
    mean_residual: float = math.nan
    """Mean of (energy - baseline) / atom over the labelled training structures in eV."""
    residual: float = math.nan
    """Root mean square of (energy - baseline) / atom in eV."""
    spread: float = math.nan
    """Standard deviation of energy / atom without any baseline in eV."""
    counts: dict[int, int] = field(default_factory=dict)
    """Atoms of each element in the training structures."""
    notes: tuple[str, ...] = ()
    """Sentences worth showing."""

    @property
    def scatter(self) -> float:
        """Standard deviation of (energy - baseline) / atom in eV."""
        return math.sqrt(max(self.residual**2 - self.mean_residual**2, 0.0))

    def of(self, structure: Structure) -> float:
        """Sum over the atoms in eV."""
        return sum(self.energies[int(z)] for z in structure.species)

    def subtracted_from(self, structures: Iterable[Structure]) -> list[Structure]:
        """The same structures with what it leaves of their energies, where they have any."""
        return [
            s if s.energy is None else replace(s, energy=s.energy - self.of(s)) for s in structures
        ]

    def table(self) -> Table:
        """The energies, for people; the notes are its caption."""
        table = Table(title="Composition baseline", title_justify="left", caption_justify="left")
        table.add_column("element")
        table.add_column("eV per atom", justify="right")
        table.add_column("from")
        table.add_column("atoms in training", justify="right")
        for z in sorted(self.energies):
            count = str(self.counts.get(z, 0))
            table.add_row(chemical_symbols[z], f"{self.energies[z]:.6f}", self.origins[z], count)
        lines = list(self.notes)
        if math.isfinite(self.residual):
            lines.insert(
                0,
                f"Energy per atom: standard deviation {self.spread:.4f} eV; less the baseline: "
                f"mean {round(self.mean_residual, 4) + 0.0:.4f} eV, root mean square "
                f"{self.residual:.4f} eV.",
            )
        table.caption = "\n".join(lines) or None
        return table


def fit_baseline(
    structures: Sequence[Structure],
    given: Mapping[int, float] | None = None,
    isolated: Mapping[int, float] | None = None,
) -> Baseline:
    """The baseline of a training set.

    For each element the first that exists: the given energy, that of the isolated atom, else least
    squares over the energies per atom, with the known elements kept.

    Args:
        structures: Training structures without isolated atoms.
        given: eV per atom by atomic number.
        isolated: eV per atom by atomic number.
    """
    species = sorted({int(z) for structure in structures for z in structure.species})
    known = {**(isolated or {}), **(given or {})}
    origins = dict.fromkeys(isolated or {}, "isolated atom") | dict.fromkeys(given or {}, "given")
    counts = _composition(structures, species)
    energies = np.array([math.nan if s.energy is None else s.energy for s in structures])
    missing = [z for z in species if z not in known]
    notes: list[str] = []
    if missing:
        fitted, notes = _least_squares(counts, energies, species, known)
        known |= fitted
        origins |= dict.fromkeys(fitted, "least squares")

    values = np.array([known[z] for z in species], dtype=np.float64)
    atoms = counts.sum(axis=1)
    labelled = np.isfinite(energies)
    residual = ((energies - counts @ values) / atoms)[labelled]
    mean, rms = _mean(residual), math.sqrt(_mean(residual**2)) if labelled.any() else math.nan
    if abs(mean) > SUSPICIOUS_RESIDUAL:
        notes.append(
            f"Warning: the energies lie {mean:.4g} eV per atom from the baseline: are the "
            "baseline's energies of the same method, reference and unit as the structures'?"
        )
    elif rms > SUSPICIOUS_RESIDUAL:
        notes.append(
            f"Warning: the baseline leaves {rms:.4g} eV per atom (root mean square), which the "
            "network has to learn: look for structures with wrong energies, energies in another "
            "unit (data.units.energy) or of several methods, or give data.isolated_atoms."
        )
    return Baseline(
        energies={z: float(known[z]) for z in sorted(known)},
        origins=origins,
        mean_residual=mean,
        residual=rms,
        spread=float(np.std((energies / atoms)[labelled])) if labelled.any() else math.nan,
        counts=dict(zip(species, map(int, counts.sum(axis=0)), strict=True)),
        notes=tuple(notes),
    )


def shift_to_fit(baseline: Baseline, structures: Sequence[Structure]) -> Baseline:
    """Move the energies of all elements to where they fit the training structures best.

    Energies of isolated atoms lie eV per atom above those of bound ones, and a network that has to
    learn that first learns nothing else meanwhile. Where compositions leave a choice, the energies
    change as little as possible, so that they still describe other compositions.

    Args:
        baseline: Of isolated atoms, for some elements at least.
        structures: Training structures.
    """
    fit = fit_baseline(baseline.subtracted_from(structures))
    origins = {
        z: "isolated atom, shifted" if origin == "isolated atom" and z in fit.energies else origin
        for z, origin in baseline.origins.items()
    }
    return replace(
        baseline,
        energies={z: e + fit.energies.get(z, 0.0) for z, e in baseline.energies.items()},
        origins=origins,
        mean_residual=fit.mean_residual,
        residual=fit.residual,
        notes=tuple(note for note in fit.notes if note.startswith("Warning")),
    )


def separate_isolated_atoms(
    structures: Iterable[Structure],
) -> tuple[list[Structure], dict[int, float]]:
    """Structures to train on, and the energies of the isolated atoms among the given ones.

    A structure is an isolated atom if it is one atom without neighbours, or if its config_type
    says so; it is set aside if it has an energy.

    Raises:
        UserError: Two isolated atoms of an element have different energies.
    """
    training: list[Structure] = []
    found: dict[int, Structure] = {}
    for structure in structures:
        if structure.energy is None or not is_isolated_atom(structure):
            training.append(structure)
            continue
        first = found.setdefault(int(structure.species[0]), structure)
        if abs(first.energy - structure.energy) > 1e-3:  # type: ignore[operator]
            raise UserError(
                f"{first.source} and {structure.source} are isolated atoms of "
                f"{symbols([int(structure.species[0])])} with different energies "
                f"({first.energy:.4f} and {structure.energy:.4f} eV); keep one of them."
            )
    return training, {z: float(s.energy) for z, s in found.items()}  # type: ignore[arg-type]


def is_isolated_atom(structure: Structure) -> bool:
    """Whether the structure is one atom without neighbours within 6 Å."""
    if structure.n_atoms != 1:
        return False
    if (structure.config_type or "").replace("_", "").lower() in ("isolatedatom", "isolatedatoms"):
        return True
    _, shifts, _ = neighbour_list(structure.positions, structure.cell, structure.pbc, ISOLATION)
    return len(shifts) == 0


def energies_by_number(energies: Mapping[str | int, float], where: str) -> dict[int, float]:
    """The same with atomic numbers as keys.

    Raises:
        UserError: A name is no chemical symbol or a value is no number.
    """
    result: dict[int, float] = {}
    for name, value in energies.items():
        z = atomic_numbers.get(str(name), name if isinstance(name, int) else 0)
        if not 1 <= z < len(chemical_symbols):
            raise UserError(f"{where}: '{name}' is not a chemical symbol.")
        try:
            result[z] = float(value)
        except (TypeError, ValueError):
            raise UserError(f"{where}: the energy of {name} is {value!r}, not a number.") from None
        if not math.isfinite(result[z]):
            raise UserError(f"{where}: the energy of {name} is not finite.")
    return result


def force_scale(structures: Iterable[Structure]) -> float | None:
    """Root mean square of the force components in eV/Å, or None without forces."""
    total, count = 0.0, 0
    for structure in structures:
        if structure.forces is not None:
            total += float((structure.forces**2).sum())
            count += structure.forces.size
    return math.sqrt(total / count) if count else None


def _composition(structures: Sequence[Structure], species: Sequence[int]) -> Floats:
    """Atoms of each species in each structure, (S, number of species)."""
    counts = np.zeros((len(structures), len(species)))
    for row, structure in zip(counts, structures, strict=True):
        row += np.bincount(np.searchsorted(species, structure.species), minlength=len(species))
    return counts


def _least_squares(
    counts: Floats, energies: Floats, species: Sequence[int], known: Mapping[int, float]
) -> tuple[dict[int, float], list[str]]:
    """Energies of the species that are not known, of the least norm where they are not unique."""
    columns = [i for i, z in enumerate(species) if z not in known]
    missing = [species[i] for i in columns]
    fixed = np.array([known.get(z, 0.0) for z in species])
    rows = np.isfinite(energies)
    if not rows.any():
        note = f"No structure has an energy: the baseline of {symbols(missing)} is zero."
        return dict.fromkeys(missing, 0.0), [note]
    # Rows are divided by the number of atoms: the error per atom is what counts.
    atoms = counts[rows].sum(axis=1)
    matrix = counts[rows][:, columns] / atoms[:, None]
    target = (energies[rows] - counts[rows] @ fixed) / atoms
    solution, _, rank, _ = np.linalg.lstsq(matrix, target, rcond=None)
    notes = []
    if rank < len(missing):
        notes.append(
            f"The compositions determine only {rank} of the {len(missing)} fitted energies "
            f"({symbols(missing)}): the solution of least norm is used, single values have no "
            "physical meaning, and other compositions are not described; isolated-atom energies "
            "would settle this."
        )
    return dict(zip(missing, map(float, solution), strict=True)), notes


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan
