"""`pet-mlip eval`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_mlip.cli.common import (
    AsJson,
    ChunkSize,
    Device,
    Dtype,
    load_calculator,
    print_json,
    progress_bar,
    stderr,
    stdout,
)
from pet_mlip.errors import UserError
from pet_mlip.files import check_writable, writing

if TYPE_CHECKING:
    from pet_mlip.ase.calculator import PETCalculator
    from pet_mlip.data.structure import Structure
    from pet_mlip.evaluate.evaluation import Evaluation, OnResult

Key = Annotated[str, typer.Option(help="Name of this label in the files.")]
StateKey = Annotated[
    str, typer.Option(help="Name of this in the files, for models that depend on it.")
]

Symmetrizations = Annotated[
    str | None,
    typer.Option(
        help="For models that are not invariant: none, structure (exact), "
        "quadrature[:DEGREE] or random[:SEED]; several with commas between are compared. By "
        "default what the model's file asks for."
    ),
]


def evaluate(
    model: Annotated[Path, typer.Argument(help="An exported model (.pt).")],
    data: Annotated[
        list[str],
        typer.Argument(
            help="Files with labelled structures, anything ASE reads; FILE@:100 takes a slice."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Write structures with predictions and references to this .xyz file."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write error tables and parity plots to this folder.")
    ] = None,
    as_json: AsJson = False,
    uncertainty: Annotated[
        bool,
        typer.Option(
            help="Compare errors with uncertainties, of models that know these; takes several "
            "times as long."
        ),
    ] = True,
    rotations: Annotated[
        int,
        typer.Option(min=0, help="Random O(3) operations for the rotational error; 0: leave out."),
    ] = 8,
    rotated: Annotated[
        int,
        typer.Option(min=1, help="Structures drawn at random to measure it on."),
    ] = 50,
    energy_key: Key = "auto",
    forces_key: Key = "auto",
    stress_key: Key = "auto",
    result_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=KEY",
            help="Name in the files of another result of the model, as in dipole=dft_dipole; may "
            "be repeated.",
        ),
    ] = None,
    stress_order: Annotated[
        str | None,
        typer.Option(help="Order of tensors of 6 numbers in files: voigt or vasp."),
    ] = None,
    max_atoms: Annotated[int, typer.Option(min=1, help="Atoms evaluated at once.")] = 2000,
    charge_key: StateKey = "charge",
    spin_multiplicity_key: StateKey = "spin_multiplicity",
    symmetrization: Symmetrizations = None,
    device: Device = "auto",
    dtype: Dtype = None,
    chunk_size: ChunkSize = None,
    seed: Annotated[int, typer.Option(help="Of the random operations.")] = 0,
) -> None:
    """Errors of a model on labelled structures, and its rotational error.

    Mean absolute and root mean square errors of energy per atom, total energy, forces and stress,
    per element and per group (info["config_type"]); standard deviations over random rotations and
    reflections of energies and forces, and the net torque on molecules. Any number of structures.
    If the model knows its uncertainties: how many errors lie within them, per element and group.
    With several symmetrizations all of this, and what each costs, side by side.
    """
    from pet_mlip.data.labels import DataUnits, LabelKeys
    from pet_mlip.data.reading import expand_files, read_structures
    from pet_mlip.evaluate import evaluate
    from pet_mlip.graph.hypers import PETHypers

    files = expand_files(data)
    calculators = _calculators(model, device, dtype, chunk_size, symmetrization)
    if output is not None and len(calculators) > 1:
        raise UserError("--output takes the predictions of one --symmetrization; give only one.")
    if report is not None:
        check_writable(report)
    results = PETHypers(**calculators[0].metadata.hypers).results
    keys = LabelKeys(
        *(energy_key, forces_key, stress_key),
        results=results,
        result_keys=split_keys(result_key or [], results),
    )
    if calculators[0].metadata.hypers.get("system_conditioning", False):
        keys = replace(keys, charge=charge_key, spin_multiplicity=spin_multiplicity_key)
    units, evaluations, refused = DataUnits(stress_order=stress_order), [], []
    with _writer(output, calculators[0].declared) as on_result, progress_bar() as progress:
        for calculator in calculators:
            try:
                evaluation = evaluate(
                    calculator,
                    partial(read_structures, files, keys, units),
                    rotations=rotations,
                    rotated=rotated,
                    seed=seed,
                    max_atoms=max_atoms,
                    on_result=on_result,
                    track=lambda items, title: progress.track(items, description=title),
                    uncertainty=uncertainty,
                )
            except UserError as error:
                if len(calculators) == 1:
                    raise
                # The other symmetrizations have errors of their own.
                refused.append(f"{calculator.symmetrization}: {error}")
                continue
            evaluations.append(evaluation)
    if not evaluations:
        raise UserError(refused[0])
    labelled = any(evaluation.errors.all for evaluation in evaluations)
    if labelled or output is not None:
        _show(evaluations, len(calculators) > 1, report, as_json)
    else:
        refused.append(
            f"{', '.join(data)}: no structure that was evaluated has an energy, forces or a stress "
            "to compare with; name them with --energy-key, --forces-key, --stress-key or "
            "--result-key."
        )
    _tell_what_is_missing(evaluations, refused)


def split_keys(pairs: list[str], known: Collection[str]) -> dict[str, str | None]:
    """Names in the files by names of results.

    Raises:
        UserError: One is no pair, or of a result that the model does not have.
    """
    keys: dict[str, str | None] = {}
    for pair in pairs:
        name, equals, key = pair.partition("=")
        if not equals:
            raise UserError(
                f"--result-key {pair}: write NAME=KEY, as in dipole=dft_dipole, or NAME= to leave "
                "these labels out."
            )
        if name not in known:
            raise UserError(
                f"--result-key {pair}: the model has no result {name}; it has "
                f"{', '.join(known) or 'none but the energy and its derivatives'}."
            )
        keys[name] = key or None
    return keys


def _tell_what_is_missing(evaluations: list[Evaluation], refused: list[str]) -> None:
    """Say what was left out, after all the rest.

    Args:
        evaluations: All that there are.
        refused: Sentences on what there is not at all.

    Raises:
        UserError: There are structures that could not be evaluated, or sentences.
    """
    notes: dict[str, None] = {}  # in order, each once
    problems = list(refused)
    for evaluation in evaluations:
        name = f"{evaluation.symmetrization}: " if len(evaluations) > 1 else ""
        for count, what, sentences in (
            (evaluation.n_skipped, "structures were skipped", evaluation.skipped),
            (evaluation.n_ignored, "labels were ignored", evaluation.ignored),
        ):
            if count:
                notes[f"{count} {what}: {sentences[0]}"] = None
        if evaluation.failed:
            total = evaluation.n_failed + evaluation.n_structures
            problems.append(
                f"{name}{evaluation.n_failed} of {total} structures could not be read or "
                f"evaluated and are left out: {_first(evaluation.failed, evaluation.n_failed)}"
            )
        if evaluation.unrotated:
            problems.append(
                f"{name}{evaluation.n_unrotated} structures are left out of the rotational error: "
                f"{_first(evaluation.unrotated, evaluation.n_unrotated)}"
            )
    for note in notes:
        stderr().print(note, markup=False)
    if problems:
        raise UserError(" ".join(problems))


def _first(sentences: list[str], count: int, most: int = 5) -> str:
    """The first sentences, and how many more there are."""
    more = count - len(sentences[:most])
    return " ".join([*sentences[:most], *([f"And {more} more."] if more else [])])


def _calculators(
    model: Path, device: str, dtype: str | None, chunk_size: int | None, symmetrization: str | None
) -> list[PETCalculator]:
    """One calculator for each symmetrization, all of the same loaded model."""
    from pet_mlip.export import load_model

    names = [None] if symmetrization is None else symmetrization.split(",")
    loaded = load_model(str(model), device=device, dtype=dtype)
    calculators = [load_calculator(loaded, device, dtype, chunk_size, name) for name in names]
    labels = [str(calculator.symmetrization) for calculator in calculators]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"--symmetrization {symmetrization} asks for {label} twice.")
    return calculators


def _show(
    evaluations: list[Evaluation], compared: bool, report: Path | None, as_json: bool
) -> None:
    """Write the report, and print the evaluation or the comparison of several."""
    from rich.markdown import Markdown

    from pet_mlip.evaluate import (
        comparison,
        comparison_markdown,
        markdown,
        write_comparison,
        write_report,
    )

    if not compared:
        summary = evaluations[0].to_dict()
        text = markdown(summary)
        if report is not None:
            write_report(report, evaluations[0])
    else:
        summary = comparison(evaluations)
        text = comparison_markdown(summary)
        if report is not None:
            write_comparison(report, evaluations)
    if as_json:
        print_json(summary)
    else:
        stdout().print(Markdown(text))


@contextmanager
def _writer(
    path: Path | None, declared: Mapping[str, Mapping[str, Any]]
) -> Iterator[OnResult | None]:
    """A function that appends structures with predictions to an extended XYZ file."""
    if path is None:
        yield None
        return
    if path.suffix not in (".xyz", ".extxyz"):
        raise UserError(f"--output {path}: the name must end with .xyz or .extxyz.")
    from ase.io.extxyz import write_extxyz

    check_writable(path.parent)
    with writing(path):
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed below

    def write(structure: Structure, prediction: dict[str, Any]) -> None:
        atoms = predicted_atoms(structure, prediction, declared)
        with writing(path):
            write_extxyz(file, [atoms])

    try:
        yield write
    finally:
        with writing(path):
            file.close()


def predicted_atoms(
    structure: Structure,
    prediction: dict[str, Any],
    declared: Mapping[str, Mapping[str, Any]],
) -> Any:
    """ASE atoms with the predictions, and the labels as reference_energy etc.

    Energy, forces and stress are calculator results; other results, and uncertainties, stand in
    info and arrays.

    Args:
        structure: With its labels.
        prediction: What the calculator says.
        declared: The model's results that are no energies.
    """
    import numpy as np
    from ase.calculators.singlepoint import SinglePointCalculator

    from pet_mlip.ase.uncertainties import UNCERTAINTIES

    atoms = structure.to_atoms()
    results = {k: prediction[k] for k in ("energy", "forces", "stress") if k in prediction}
    atoms.calc = SinglePointCalculator(atoms, **results)
    if structure.energy is not None:
        atoms.info["reference_energy"] = structure.energy
    if structure.forces is not None:
        atoms.arrays["reference_forces"] = structure.forces
    if structure.stress is not None:
        atoms.info["reference_stress"] = structure.stress  # 3 x 3: six numbers have no known order
    for name in UNCERTAINTIES:
        if name in prediction:
            where = atoms.info if np.ndim(prediction[name]) == 0 else atoms.arrays
            where[name] = prediction[name]
    for name, result in declared.items():
        references = (structure.atomic_results if result["per_atom"] else structure.results).get(
            name
        )
        for key, values in ((name, prediction[name]), (f"reference_{name}", references)):
            if values is not None and result["per_atom"]:
                # Columns of a file hold numbers or rows of them.
                flat = values.reshape(len(atoms), -1)
                atoms.arrays[key] = flat[:, 0] if values.ndim == 1 else flat
            elif values is not None:
                atoms.info[key] = values
    return atoms
