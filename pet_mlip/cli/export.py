"""`pet-mlip export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from pet_mlip.cli.common import pairs_table, refuse_metatrain, stdout
from pet_mlip.errors import UserError
from pet_mlip.files import check_replaceable, check_writable

if TYPE_CHECKING:
    from pet_mlip.ecse.hypers import SymmetrizationHypers
    from pet_mlip.engine.potential import Potential
    from pet_mlip.export import Metadata, Orientations

SUFFIXES = {"torchscript": ".pt", "metatomic": ".metatomic.pt", "gromacs": ".gromacs.pt"}
"""Of the files of each format."""


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of a training (.ckpt).")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; by default CHECKPOINT with .pt, .metatomic.pt or .gromacs.pt.",
        ),
    ] = None,
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="torchscript, for this package's calculator and LAMMPS' pair_style pet; "
            "metatomic, for its interfaces to ASE, TorchSim, i-PI, PLUMED and LAMMPS; or gromacs, "
            "for NNPot of GROMACS.",
        ),
    ] = "torchscript",
    dtype: Annotated[str, typer.Option(help="Precision of the network: float32 or float64.")] = (
        "float32"
    ),
    symmetrization: Annotated[
        str | None,
        typer.Option(
            help="Frame ensemble of the exported model: closest_pairs or none; by default what it "
            "was trained for. For models that are not invariant also "
            "structure (exact), quadrature or random (approximate): averages over orientations of "
            "the whole structure, which the ASE calculator then takes by default."
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(help="Export with or without frames even if the training was the other way."),
    ] = False,
) -> None:
    """Export a checkpoint to one TorchScript file, which needs nothing else to run.

    The file holds weights, code and metadata. It is compared with the model it was made of, and
    not written if their predictions differ.
    """
    from pet_mlip.export import save_model
    from pet_mlip.train.checkpoint import load_checkpoint

    if file_format not in SUFFIXES:
        raise UserError(f"--format {file_format} is not known; use {' or '.join(SUFFIXES)}.")
    save: Callable[..., Metadata] = save_model
    if file_format == "metatomic":
        from pet_mlip.interfaces.metatomic import save_metatomic as save
    if file_format == "gromacs":
        from pet_mlip.interfaces.gromacs import save_gromacs as save
    if dtype not in ("float32", "float64"):
        raise UserError(f"--dtype {dtype} is not known; use float32 or float64.")
    refuse_metatrain(checkpoint)
    path = output or checkpoint.with_suffix(SUFFIXES[file_format])
    if path.exists() and checkpoint.exists() and path.samefile(checkpoint):
        raise UserError(f"{path} is the checkpoint itself; give another --output.")
    check_replaceable(path)
    check_writable(path.parent)
    potential, _, summary = load_checkpoint(checkpoint)
    potential, orientations = symmetrized(potential, symmetrization, force)
    options: dict[str, Any] = {"dtype": dtype, "training_summary": summary}
    if file_format == "torchscript":
        options["orientations"] = orientations
    elif orientations != "none":
        raise UserError(
            f"--symmetrization {orientations} is an average that this package's calculator takes, "
            "and other programs do not: leave it out, or leave out --format."
        )
    metadata = save(path, potential, **options)
    facts = {
        "parameters": metadata.n_parameters,
        "cutoff": f"{metadata.cutoff:g} Å",
        "precision": metadata.dtype,
        "symmetrization": f"{symmetrization or metadata.symmetrization['ensemble']} (trained: "
        f"{metadata.symmetrization['train']})",
        "uncertainties": "known" if metadata.uncertainty else "none",
    }
    stdout().print(pairs_table(f"Exported {path}", facts))


def symmetrized(
    potential: Potential, symmetrization: str | None, force: bool = False
) -> tuple[Potential, Orientations]:
    """The potential with what --symmetrization asks for, and the average over orientations.

    Raises:
        UserError: There is no such symmetrization, or the training did not prepare for it.
    """
    from pet_mlip.export import Orientations

    for name in get_args(Orientations):
        if name == symmetrization != "none":
            if potential.symmetrization.ensemble != "none":
                raise UserError(
                    f"--symmetrization {name} is for models that are not invariant, but this one "
                    f"averages over {potential.symmetrization.ensemble} frames already."
                )
            return potential, name
    if symmetrization is not None:
        potential = with_ensemble(potential, symmetrization, force)
    return potential, "none"


def with_ensemble(potential: Potential, ensemble: str, force: bool) -> Potential:
    """The potential with another frame ensemble at inference.

    Raises:
        UserError: There is no such ensemble, or the training did not prepare for it and `force` is
            not given.
    """
    from pet_mlip.ecse.hypers import SymmetrizationHypers
    from pet_mlip.engine.potential import Potential

    known = get_args(SymmetrizationHypers.model_fields["ensemble"].annotation)
    if ensemble not in known:
        choices = ", ".join((*known, "structure", "quadrature", "random"))
        raise UserError(f"--symmetrization {ensemble} is not known; use one of {choices}.")
    trained = potential.symmetrization
    if ensemble == trained.ensemble:
        return potential
    problem = mismatch(trained, ensemble)
    if problem is not None and not force:
        raise UserError(f"{problem} Give --force to export it all the same.")
    # model_copy does not validate: `force` may ask for what a training would refuse.
    changed = Potential(
        potential.species,
        potential.pet_hypers,
        trained.model_copy(update={"ensemble": ensemble}),
        potential.subtracted,
    )
    changed.set_dtype(next(potential.pet.parameters()).dtype)
    # Uncertainties stay behind: they are those of features that other frames do not give.
    changed.load_state_dict(potential.state_dict())
    return changed.eval()


def mismatch(trained: SymmetrizationHypers, ensemble: str) -> str | None:
    """Why a model trained so should not be evaluated with an ensemble; None if it can be."""
    if ensemble == trained.ensemble:
        return None
    if trained.train == "structure":
        return (
            "This model was trained with one rotation per structure (symmetrization.train: "
            "structure), and has never seen tokens that are averages over "
            f"{ensemble} frames (force errors would be a multiple); --symmetrization structure is "
            "exact for it, or fine-tune it in frames."
        )
    return (
        f"This model was trained in frames of the {trained.ensemble} ensemble, and has never seen "
        f"environments as --symmetrization {ensemble} shows them."
    )
