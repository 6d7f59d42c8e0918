"""The command line: ``python -m benchmarks.starting_weights``, in a clone of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import make_app, run_app
from benchmarks.starting_weights.generate import make_data

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


def main() -> None:
    """Run the command line; a mistake is one sentence and exit code 1."""
    run_app(app)


if __name__ == "__main__":
    main()
