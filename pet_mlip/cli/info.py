"""`pet-mlip info`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from pet_mlip.cli.common import (
    AsJson,
    pairs_table,
    print_json,
    progress_bar,
    readable,
    refuse_metatrain,
    stdout,
)
from pet_mlip.errors import UserError
from pet_mlip.weights import MODEL, find_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pet_mlip.data.structure import Structure

Kind = Literal["model", "checkpoint", "data"]
# Neighbour statistics of data reach this far if no model says otherwise.
DEFAULT_CUTOFF = 5.0
# Lists longer than this are cut in the terminal; --json has all.
LONGEST_LIST = 10


def info(
    file: Annotated[
        str,
        typer.Argument(help="An exported model, a checkpoint, or structures."),
    ],
    structures: Annotated[
        list[str] | None,
        typer.Option(
            "--structure", help="For a model: count its frames per atom on these structures."
        ),
    ] = None,
    cutoff: Annotated[
        float, typer.Option(min=0.1, help="For structures: radius of neighbour statistics in Å.")
    ] = DEFAULT_CUTOFF,
    as_json: AsJson = False,
) -> None:
    """Describe a model, a checkpoint, or data.

    Models and checkpoints: metadata, hyperparameters, parameter count, cutoff, species, and with
    --structure the frames per atom. Data: counts, elements, label coverage, neighbour and distance
    statistics, energy and force ranges, outliers, duplicates, mistakes.
    """
    kind = kind_of(file)
    if kind == "data":
        if structures:
            raise UserError("--structure goes with a model; leave it out to describe them.")
        _print_data(describe_data(file, cutoff), as_json)
        return
    facts = describe_model(Path(file)) if kind == "model" else describe_checkpoint(Path(file))
    if structures:
        if kind == "checkpoint":
            raise UserError("--structure goes with a model: export the checkpoint first.")
        facts["frames"] = count_frames(Path(file), structures)
    if as_json:
        print_json({"kind": kind, **facts})
        return
    for title, group in facts.items():
        stdout().print(pairs_table(title, group))


def kind_of(file: str) -> Kind:
    """What a file is, told by its content; patterns and slices of frames are data."""
    file = str(find_weights(file, MODEL))
    if not Path(file).is_file() or not zipfile.is_zipfile(file):
        # Also a model that was cut short; only its name can still tell.
        if file.endswith(".ckpt.gz"):
            return "checkpoint"
        return "model" if Path(file).suffix == ".pt" else "data"
    with zipfile.ZipFile(file) as archive:
        members = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in members:
        return "model"
    return "checkpoint" if "data.pkl" in members else "data"


def describe_model(path: Path) -> dict[str, dict[str, Any]]:
    """Tables about an exported model."""
    from pet_mlip.export import read_metadata

    m = read_metadata(path)
    return {
        "model": {
            "file": str(path),
            "species": symbols(m.species),
            "parameters": m.n_parameters,
            "cutoff [Å]": m.cutoff,
            "interaction range [Å]": m.cutoff * m.interaction_range,
            "interaction range [cutoffs]": m.interaction_range,
            "average over orientations": orientations(m.symmetrization),
            "precision": m.dtype,
            "units": m.units,
            **labels_lack(m.subtracted),
            "results": [describe_result(result) for result in m.results],
            "format version": m.format_version,
            "written by": f"pet_mlip {m.package_version}, torch {m.torch_version}",
            "references": list(m.references),
        },
        "symmetrization": m.symmetrization,
        "hyperparameters": m.hypers,
        **({"training": m.training} if m.training else {}),
    }


def labels_lack(subtracted: str | None) -> dict[str, str]:
    """What was subtracted from the labels, if anything was."""
    return {} if subtracted is None else {"subtracted from the labels": subtracted}


def orientations(symmetrization: dict[str, Any]) -> str:
    """What a calculator averages over by default, in words."""
    if symmetrization["inference"] != "plain":
        return f"not needed: invariant, {symmetrization['ensemble']} frames of each environment"
    declared = symmetrization.get("orientations", "none")
    return {
        "none": "none: predictions depend on the orientation; PETCalculator(symmetrization=...)",
        "structure": "structure: exact, taken by the ASE calculator",
        "quadrature": "quadrature: approximate, taken by the ASE calculator",
        "random": "random: another orientation in every call, taken by the ASE calculator",
    }[declared]


def describe_result(result: dict[str, Any]) -> str:
    """Name, rank and unit of a result in words."""
    rank = ("scalar", "vector", "symmetric tensor")[result["rank"]]
    where = "of each atom" if result["per_atom"] else "of the structure"
    derivative = ", with forces and stress" if result["differentiated"] else ""
    unit = f" ({result['unit']})" if result["unit"] else ""
    return f"{result['name']}{unit}: {rank} {where}{derivative}"


def describe_checkpoint(path: Path) -> dict[str, dict[str, Any]]:
    """Tables about a checkpoint of a training."""
    from pet_mlip.train.checkpoint import load_checkpoint

    refuse_metatrain(path)
    potential, config, summary = load_checkpoint(path)
    hypers = potential.pet_hypers
    return {
        "checkpoint": {
            "file": str(path),
            "species": symbols(potential.species),
            "parameters": potential.n_parameters(),
            "cutoff [Å]": potential.cutoff,
            "interaction range [Å]": potential.cutoff * hypers.interaction_range,
            "precision": str(next(potential.pet.parameters()).dtype).removeprefix("torch."),
            **labels_lack(potential.subtracted),
        },
        "training": summary,
        "symmetrization": potential.symmetrization.model_dump(),
        "hyperparameters": hypers.model_dump(),
        "configuration": config,
    }


def count_frames(model: Path, structures: list[str]) -> dict[str, Any]:
    """Frames per atom of a model on structures, which also sets its cost."""
    from pet_mlip.ase.calculator import PETCalculator
    from pet_mlip.data.reading import read_structures
    from pet_mlip.evaluate import evaluate

    calculator = PETCalculator(model)
    with progress_bar() as progress:
        stream = without_labels(progress.track(read_structures(structures), description="counting"))
        found = evaluate(calculator, stream)
    return {
        "structures": found.n_structures,
        "atoms": found.n_atoms,
        "mean frames per atom": found.n_frames / max(found.n_atoms, 1),
        "max frames per atom": found.max_frames,
    }


def without_labels(structures: Any) -> Iterator[Structure]:
    """The same structures with nothing to compare with: only energies need to be computed."""
    from pet_mlip.data.structure import Structure

    for s in structures:
        yield Structure(s.species, s.positions, s.cell, s.pbc, source=s.source)


def describe_data(file: str, cutoff: float) -> dict[str, Any]:
    """Statistics of structures, plain JSON types."""
    from pet_mlip.data.reading import expand_files, read_structures
    from pet_mlip.data.statistics import data_statistics

    files = expand_files(file)
    with progress_bar() as progress:
        task = progress.add_task("reading", total=None)
        statistics = data_statistics(
            read_structures(files), cutoff, progress=lambda n: progress.update(task, completed=n)
        )
    return statistics.to_dict()


def _print_data(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"kind": "data", **facts})
        return
    ranges = {name: r for name, r in facts.items() if isinstance(r, dict) and "std" in r}
    lists = {name: v for name, v in facts.items() if isinstance(v, list)}
    rest = {n: v for n, v in facts.items() if n not in ranges and n not in lists and v is not None}
    stdout().print(pairs_table("data", {_words(name): value for name, value in rest.items()}))
    table = Table("", "min", "mean", "max", "std", title="ranges (eV, Å)", title_justify="left")
    for name, r in ranges.items():
        table.add_row(_words(name), *(readable(r[key]) for key in ("min", "mean", "max", "std")))
    stdout().print(table)
    for name, items in lists.items():
        _print_list(_words(name), items)


def _print_list(title: str, items: list[Any]) -> None:
    stdout().print(f"\n{title}: {len(items)}")
    for item in items[:LONGEST_LIST]:
        stdout().print(f"  {readable(item).replace(chr(10), ', ')}", markup=False)
    if len(items) > LONGEST_LIST:
        stdout().print(f"  ... and {len(items) - LONGEST_LIST} more (--json shows all)")


def _words(name: str) -> str:
    return name.replace("_", " ").removeprefix("n ")


def symbols(species: list[int]) -> str:
    """Chemical symbols."""
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[z] for z in species)
