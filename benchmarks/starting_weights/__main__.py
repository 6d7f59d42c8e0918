"""The command line: ``python -m benchmarks.starting_weights``, in a clone of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import make_app, run_app
from benchmarks.starting_weights.generate import make_data
from pet_mlip.export import save_model
from pet_mlip.train.checkpoint import load_checkpoint, read_checkpoint, write_checkpoint
from pet_mlip.weights import CHECKPOINT, FOLDER, MODEL

app = make_app()


@app.command()
def generate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the data.")],
    structures: Annotated[int, typer.Option(min=1, help="About how many.")] = 24000,
    processes: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw molecules and label them with GFN2-xTB; writes train, validation and test.xyz.gz.

    What is finished in the folder is kept. Needs rdkit and tblite.
    """
    make_data(output, structures, processes, seed)


@app.command()
def ship(
    run: Annotated[Path, typer.Argument(help="Folder of the training.")],
    name: Annotated[str, typer.Option(help="Of the weights.")] = "organic-xtb",
) -> None:
    """Put the weights of a training into the package, as a checkpoint and as an exported model."""
    content = read_checkpoint(run / "best.ckpt")
    kept = (
        *("package_version", "config", "loss_scale", "potential"),
        *("dtype", "average", "summary", "uncertainty"),
    )
    content["config"]["data"]["root"] = "."  # nobody else has that folder
    checkpoint = FOLDER / f"{name}{CHECKPOINT}"
    write_checkpoint(checkpoint, {key: content[key] for key in kept})
    potential, _, summary = load_checkpoint(checkpoint)
    save_model(FOLDER / f"{name}{MODEL}", potential, training_summary=summary)


def main() -> None:
    """Run the command line; a mistake is one sentence and exit code 1."""
    run_app(app)


if __name__ == "__main__":
    main()
