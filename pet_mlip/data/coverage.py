"""Which structures carry which labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from pet_mlip.data.batch import BatchTotals, label_totals
from pet_mlip.data.labels import label_names
from pet_mlip.data.reading import read_atoms
from pet_mlip.data.structure import Structure
from pet_mlip.errors import UserError


def coverage_table(sets: Mapping[str, Sequence[Structure]]) -> Table:
    """How many structures of each set (training, validation, ...) carry which labels."""
    table = Table(title="Labels", title_justify="left")
    table.add_column("set")
    others = sorted({name for structures in sets.values() for s in structures for name in names(s)})
    for column in ("structures", "atoms", "energy", "forces", "stress", *others):
        table.add_column(column, justify="right")
    for name, structures in sets.items():
        totals = label_totals(structures)
        with_forces = sum(s.forces is not None for s in structures)
        with_others = [sum(name in names(s) for s in structures) for name in others]
        labels = (totals.energies, with_forces, totals.stresses, *with_others)
        table.add_row(
            name,
            str(totals.structures),
            str(totals.atoms),
            *(_share(count, totals) for count in labels),
        )
    return table


def require_labels(structures: Sequence[Structure], wanted: Sequence[str]) -> None:
    """Raise UserError if a wanted label ("energy", "forces", "stress") is nowhere present."""
    for label in wanted:
        if any(getattr(structure, label) is not None for structure in structures):
            continue
        raise UserError(
            f"No structure of the {len(structures)} for training has {label}, but the loss asks "
            f"for it; {_advice(structures, label)}, or set its weight in the loss to 0."
        )


def require_results(structures: Sequence[Structure], wanted: Sequence[str]) -> None:
    """Raise UserError if a wanted result that is no energy is nowhere present."""
    for name in wanted:
        if not any(name in names(structure) for structure in structures):
            raise UserError(
                f"No structure of the {len(structures)} for training has {name}, which "
                f"model.results or the checkpoint declares; {_advice(structures, name)} "
                f"(data.keys.results), or set its weight training.loss.results.{name} to 0."
            )


def names(structure: Structure) -> set[str]:
    """Names of the labels that are no energies, forces or stresses."""
    return {*structure.results, *structure.atomic_results}


def _share(count: int, totals: BatchTotals) -> str:
    if count == 0:
        return "none"
    if count == totals.structures:
        return "all"
    return f"{count} ({100 * count / totals.structures:.1f} %)"


def _advice(structures: Sequence[Structure], label: str) -> str:
    """What the first file offers instead."""
    if label == "stress" and structures and not any(s.volume > 0 for s in structures):
        return "stresses are only defined for periodic structures with a volume, and none is"
    try:
        source, atoms = next(read_atoms(structures[0].source.file))
    except (IndexError, UserError):
        return f"check the key of {label}"
    found = ", ".join(label_names(atoms)) or "no names at all"
    return f"set the key of {label} to one of the names that {source.file} has ({found})"
