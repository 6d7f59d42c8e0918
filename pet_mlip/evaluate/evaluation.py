"""Evaluates a model on labelled structures, one group after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.ase.checks import check_atoms, electronic_state
from pet_mlip.ase.symmetrize.structure import Cost
from pet_mlip.ase.uncertainties import UNCERTAINTIES
from pet_mlip.data.structure import Structure
from pet_mlip.errors import UserError
from pet_mlip.evaluate.calibration import CalibrationTable
from pet_mlip.evaluate.equivariance import RotationalErrors, random_operations, rotational_errors
from pet_mlip.evaluate.errors import ErrorTable, labelled
from pet_mlip.evaluate.sample import Reservoir, Sample

DERIVED = ("energy", "forces", "stress")
"""What comes from the energy."""

OnResult = Callable[[Structure, dict[str, Any]], None]
Readable = Callable[[Callable[[UserError], None]], Iterable[Structure]]
Track = Callable[[Iterable[Structure], str], Iterable[Structure]]


@dataclass
class Evaluation:
    """What `evaluate` found; its size does not depend on the number of structures."""

    symmetrization: str = "none"
    """Average over orientations that the calculator took, with its choices."""
    averages_frames: bool = False
    """Whether the model averages over the frames of each environment itself."""
    errors: ErrorTable = field(default_factory=ErrorTable)
    calibration: CalibrationTable | None = None
    """None if there are no uncertainties."""
    rotational: RotationalErrors | None = None
    """None if no rotations were asked for."""
    n_structures: int = 0
    n_atoms: int = 0
    n_frames: int = 0
    """Sum of the frames of all atoms."""
    max_frames: int = 0
    n_evaluations: int = 0
    """Of the model, in predictions: of structures, or of receptive fields each in one frame."""
    relative_cost: float = 0.0
    """Sum over structures; one plain evaluation of each costs 1."""
    seconds: float = 0.0
    """Spent in predictions, without those of the rotational error."""
    skipped: list[str] = field(default_factory=list)
    """Why structures without atoms were left out, one sentence each (the first hundred)."""
    n_skipped: int = 0
    failed: list[str] = field(default_factory=list)
    """Why structures could not be read or evaluated, one sentence each (the first hundred)."""
    n_failed: int = 0
    unrotated: list[str] = field(default_factory=list)
    """Why the rotational error lacks structures, one sentence each (the first hundred)."""
    n_unrotated: int = 0
    ignored: list[str] = field(default_factory=list)
    """Labels that are not finite, one sentence each (the first hundred): they count for nothing."""
    n_ignored: int = 0
    samples: dict[str, Sample] = field(default_factory=dict)
    """(reference, prediction) pairs of each quantity, in its unit, for parity plots."""

    def add(self, structure: Structure, prediction: dict[str, Any], cost: Cost) -> None:
        """Add a structure with labels, what the model says of it, and what that cost."""
        self.errors.add(structure, prediction)
        if self.calibration is not None:
            self.calibration.add(structure, prediction)
        for quantity, predicted, reference in labelled(structure, prediction):
            self.samples.setdefault(quantity, Sample()).add(predicted, reference)
        self.n_structures += 1
        self.n_atoms += structure.n_atoms
        self.n_frames += int(prediction["n_frames"].sum())
        self.max_frames = max(self.max_frames, int(prediction["n_frames"].max(initial=0)))
        self.n_evaluations += cost.evaluations
        self.relative_cost += cost.relative

    def fail(self, reason: object) -> None:
        """Count a structure that cannot be read or evaluated; the reason is a sentence."""
        self.n_failed += 1
        keep(self.failed, str(reason))

    def to_dict(self) -> dict[str, Any]:
        """Summarize in plain JSON types: errors in meV, meV/Å, meV/Å^3; costs are means."""
        count = max(self.n_structures, 1)
        cost = {
            "evaluations": self.n_evaluations / count,
            "relative": self.relative_cost / count,
            "seconds": self.seconds / count,
        }
        return {
            "symmetrization": self.symmetrization,
            "structures": self.n_structures,
            "skipped": self.n_skipped,
            "failed": self.n_failed,
            "unrotated": self.n_unrotated,
            "ignored_labels": self.n_ignored,
            "left_out": [*self.failed, *self.unrotated, *self.ignored, *self.skipped],
            "atoms": self.n_atoms,
            "mean_frames": self.n_frames / max(self.n_atoms, 1),
            "max_frames": self.max_frames,
            "seconds": self.seconds,
            "cost": None if self.averages_frames else cost,
            "errors": self.errors.to_dict(),
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "rotational_error": None if self.rotational is None else self.rotational.to_dict(),
        }


def untracked(items: Iterable[Structure], title: str) -> Iterable[Structure]:
    """The items themselves: no progress bar."""
    return items


def evaluate(
    calculator: PETCalculator,
    structures: Iterable[Structure] | Readable,
    *,
    rotations: int = 0,
    rotated: int = 50,
    seed: int = 0,
    max_atoms: int = 2000,
    on_result: OnResult | None = None,
    track: Track = untracked,
    uncertainty: bool = True,
) -> Evaluation:
    """Compute the errors of a model on labelled structures.

    Structures are read, evaluated and forgotten in groups: memory does not grow with their number.
    Those without atoms are skipped, labels that are not finite are ignored, and what cannot be read
    or what the model cannot evaluate (an unknown element, positions that are not finite) is counted
    and told in the result: nothing else is lost for it.

    Args:
        calculator: The model.
        structures: With whatever labels they have; or a function that makes them, and tells the
            faults of those that it cannot read to the function that it is given.
        rotations: Number of random O(3) operations for the rotational error; 0 leaves it out. The
            operations are the same for all structures.
        rotated: Number of structures, drawn from all with equal probability, for that error.
        seed: Of operations and draw.
        max_atoms: Atoms evaluated at once.
        on_result: Called with each structure and its prediction, in order.
        track: Shows the progress through the items of a loop with that title.
        uncertainty: Whether to compare errors with uncertainties, of models that know these; it
            takes several times as long.

    Raises:
        UserError: Not a single structure can be evaluated; names the first with file and frame.
    """
    averages_frames = calculator.metadata.symmetrization["inference"] != "plain"
    units = {name: result["unit"] for name, result in calculator.declared.items()}
    evaluation = Evaluation(str(calculator.symmetrization), averages_frames, ErrorTable(units))
    if uncertainty and calculator.uncertainties.known:
        evaluation.calibration = CalibrationTable()
    rng = np.random.default_rng(seed)
    operations = random_operations(rotations, rng)
    chosen: Reservoir[Structure] = Reservoir(rotated, rng)
    everything = on_result is not None
    if callable(structures):
        structures = structures(evaluation.fail)
    good = _those_that_work(calculator, track(structures, "evaluating"), evaluation)
    for group in grouped(good, max_atoms):
        start = time.perf_counter()
        group, predictions = _predict_what_works(
            calculator, group, max_atoms, everything, evaluation
        )
        evaluation.seconds += time.perf_counter() - start
        for structure, prediction in zip(group, predictions, strict=True):
            evaluation.add(structure, prediction, calculator.cost(structure.to_atoms()))
            chosen.add(structure)
            if on_result is not None:
                on_result(structure, prediction)
    if evaluation.n_structures == 0 and (evaluation.failed or evaluation.skipped):
        raise UserError(_nothing_left(evaluation))
    if rotations > 0:
        evaluation.rotational = RotationalErrors()
        for structure in track(chosen.items, "rotating"):
            atoms = structure.to_atoms()
            try:
                rotational_errors(calculator, atoms, operations, evaluation.rotational, max_atoms)
            except UserError as error:
                evaluation.n_unrotated += 1
                keep(evaluation.unrotated, f"{structure.source}, rotated: {error}")
    return evaluation


def _nothing_left(evaluation: Evaluation) -> str:
    """Why no structure was evaluated, in one sentence."""
    first = (evaluation.failed or evaluation.skipped)[0]
    count = evaluation.n_failed + evaluation.n_skipped
    if count == 1:
        return first
    if evaluation.failed:
        return f"None of {count} structures could be evaluated; the first: {first}"
    return f"None of {count} structures has atoms; the first: {first}"


def _those_that_work(
    calculator: PETCalculator, structures: Iterable[Structure], evaluation: Evaluation
) -> Iterator[Structure]:
    """The structures that the model can evaluate, as far as one sees without evaluating them."""
    hypers = calculator.metadata.hypers
    for structure in structures:
        if structure.n_atoms == 0:
            evaluation.n_skipped += 1
            keep(evaluation.skipped, f"{structure.source} contains no atoms.")
            continue
        try:
            atoms = structure.to_atoms()
            check_atoms(atoms, calculator.metadata.species, str(structure.source))
            if hypers.get("system_conditioning", False):
                electronic_state(atoms, hypers, str(structure.source))
            if structure.subtracted is not None and calculator.d3 is not None:
                raise UserError(
                    f"{structure.source}: {structure.subtracted} is subtracted from these labels, "
                    f"but the model adds {calculator.d3.name}; give the labels as they were."
                )
        except UserError as error:
            evaluation.fail(error)
            continue
        yield _with_finite_labels(structure, evaluation)


def _with_finite_labels(structure: Structure, evaluation: Evaluation) -> Structure:
    """The structure without labels that are not finite, which would make every mean NaN."""
    without: dict[str, Any] = {}
    labels = {label: getattr(structure, label) for label in DERIVED}
    for label, value in {**labels, **structure.results, **structure.atomic_results}.items():
        if value is not None and not np.isfinite(value).all():
            if label in labels:
                without[label] = None
            evaluation.n_ignored += 1
            keep(evaluation.ignored, f"{structure.source}: the {label} is not finite.")
    for group in ("results", "atomic_results"):
        values = getattr(structure, group)
        finite = {name: v for name, v in values.items() if np.isfinite(v).all()}
        if len(finite) < len(values):
            without[group] = finite
    return replace(structure, **without) if without else structure


def _predict_what_works(
    calculator: PETCalculator,
    group: list[Structure],
    max_atoms: int,
    everything: bool,
    evaluation: Evaluation,
) -> tuple[list[Structure], list[dict[str, Any]]]:
    """Structures and predictions of a group; one after the other if something is wrong in it."""
    derived = DERIVED if everything else labelled_properties(group)
    properties = [*derived, *calculator.declared]
    if evaluation.calibration is not None:
        of_forces = "forces" in derived
        properties += [name for name, level in UNCERTAINTIES.items() if level == 1 or of_forces]
    batch = [structure.to_atoms() for structure in group]
    try:
        return group, calculator.compute_batch(batch, properties, max_atoms)
    except UserError as error:
        if len(group) == 1:
            evaluation.fail(f"{group[0].source}: {error}")
            return [], []
    found = [
        _predict_what_works(calculator, [one], max_atoms, everything, evaluation) for one in group
    ]
    return [s for part, _ in found for s in part], [p for _, part in found for p in part]


def keep(sentences: list[str], sentence: str, most: int = 100) -> None:
    """Add a sentence, unless there are many already."""
    if len(sentences) < most:
        sentences.append(sentence)


def labelled_properties(group: list[Structure]) -> tuple[str, ...]:
    """The energy, and whatever else some structure has a label for: derivatives cost time."""
    has_forces = any(structure.forces is not None for structure in group)
    has_stress = any(structure.stress is not None for structure in group)
    return ("energy", *(["forces"] if has_forces else []), *(["stress"] if has_stress else []))


def grouped(structures: Iterable[Structure], max_atoms: int) -> Iterator[list[Structure]]:
    """Consecutive groups of at most `max_atoms` atoms, or of one structure."""
    group: list[Structure] = []
    size = 0
    for structure in structures:
        if group and size + structure.n_atoms > max_atoms:
            yield group
            group, size = [], 0
        group.append(structure)
        size += structure.n_atoms
    if group:
        yield group
