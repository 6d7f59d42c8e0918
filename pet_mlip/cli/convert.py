"""`pet-mlip convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet_mlip.cli.common import pairs_table, stderr, stdout
from pet_mlip.errors import UserError


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A checkpoint of metatrain's PET (.ckpt or .ckpt.gz), such as those of UPET."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .pt for a model to run, .ckpt for a checkpoint to train on.",
        ),
    ],
    head: Annotated[
        str | None,
        typer.Option(
            help="Which energy to convert; by default `energy`, or the only one there is."
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Precision of the network: float32 or float64; by default as in the checkpoint."
        ),
    ] = None,
    symmetrization: Annotated[
        str,
        typer.Option(
            help="Average over orientations that the ASE calculator takes by default: structure "
            "(exact), quadrature or random (approximate); none leaves the model as it is."
        ),
    ] = "none",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output file if there is one.")
    ] = False,
) -> None:
    """Convert a checkpoint of metatrain's PET; metatrain is not needed.

    The converted model gives the same energies, forces and stresses. It is as little invariant
    under rotations as the original; --symmetrization structure makes it exactly so in ASE. What has
    no counterpart here is refused, and what is left out is said: other targets than the energy. Its
    uncertainty estimate (LLPR) is kept. The file is read without running any code in it.
    """
    from pet_mlip.cli.export import symmetrized
    from pet_mlip.convert import check_output, write_converted
    from pet_mlip.convert import convert as convert_checkpoint

    if dtype not in (None, "float32", "float64"):
        raise UserError(f"--dtype {dtype} is not known; use float32 or float64.")
    check_output(output, overwrite)
    converted = convert_checkpoint(checkpoint, head)
    potential, orientations = symmetrized(converted.potential, symmetrization)
    if orientations != "none" and output.suffix != ".pt":
        raise UserError(
            f"--symmetrization {symmetrization} is a property of models to run; write a .pt file."
        )
    precision = write_converted(output, converted, dtype, orientations)
    facts = {
        "checkpoint version": converted.source["checkpoint_version"],
        "head": converted.source["head"],
        "species": len(potential.species),
        "parameters": potential.n_parameters(),
        "cutoff": f"{potential.cutoff:g} Å",
        "precision": precision,
        "symmetrization": orientations,
    }
    stdout().print(pairs_table(f"Converted {checkpoint.name} to {output}", facts))
    for note in converted.notes:
        stderr().print(note, markup=False)
