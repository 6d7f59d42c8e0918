"""The command line: ``python -m benchmarks.relaxations``, in a clone of the repository.

Relaxes crystals of all crystal systems with the same plain PET as it is, averaged over orientations
in several ways, and with a PET that has ECSE inside, and counts the space groups that are kept, as
Matbench Discovery does; and computes by how much frequencies at Gamma split that the space group
makes equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.command import check_no_file, make_app, run_app
from benchmarks.relaxations.crystals import (
    SHIPPED,
    aflow_library,
    choose,
    read_crystals,
    write_crystals,
)
from benchmarks.relaxations.report import markdown, plot
from benchmarks.relaxations.suite import CONTESTANTS, Settings, run
from pet_mlip.errors import UserError
from pet_mlip.export import read_metadata
from pet_mlip.files import write_text

HERE = Path(__file__).parent
NAMES = ",".join(contestant.name for contestant in CONTESTANTS)
app = make_app()


@app.command("run")
def relax_all(
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("relaxations"),
    crystals: Annotated[Path, typer.Option(help="Any file that ASE reads.")] = SHIPPED,
    contestants: Annotated[str, typer.Option(help=f"Of {NAMES}.")] = NAMES,
    plain: Annotated[Path, typer.Option(help="Model without ECSE.")] = HERE / "plain.pt",
    ecse: Annotated[Path, typer.Option(help="Model with it.")] = HERE / "ecse.pt",
    largest_force: Annotated[float, typer.Option(min=0.0, help="eV/Å.")] = 0.01,
    steps: Annotated[int, typer.Option(min=1, help="At most.")] = 300,
    phonon_atoms: Annotated[int, typer.Option(min=0, help="Largest cell for Hessians.")] = 8,
) -> None:
    """Relax, and write relaxations.json, .md and .png; what is finished is not repeated."""
    check_no_file(output)
    names = tuple(name.strip() for name in contestants.split(","))
    unknown = sorted(set(names) - {contestant.name for contestant in CONTESTANTS})
    if unknown:
        raise UserError(f"--contestants: {unknown[0]!r} is none of {NAMES}.")
    for path in (plain, ecse):
        read_metadata(path)
    torch.set_num_threads(1)
    settings = Settings(names, largest_force, steps, phonon_atoms)
    results = run(read_crystals(crystals), plain, ecse, settings, output)
    write_text(output / "relaxations.md", markdown(results) + "\n")
    plot(output / "relaxations.png", results)
    print(markdown(results))


@app.command("crystals")
def make_crystals(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = SHIPPED,
) -> None:
    """Choose the benchmark's crystals among AFLOW's prototypes; needs pymatgen."""
    chosen = choose(aflow_library())
    write_crystals(output, chosen)
    print(f"{len(chosen)} crystals")


@app.command("data")
def make_training_data(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the data.")],
    crystals: Annotated[int, typer.Option(min=1, help="Drawn ones, about.")] = 380,
    processes: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Make train.xyz.gz and test.xyz.gz, labelled by SevenNet-0; what is there is kept.

    Needs pymatgen and sevenn, in an environment of their own.
    """
    from benchmarks.relaxations.teach import make_data

    check_no_file(output)
    make_data(output, crystals, processes, seed)


def main() -> None:
    """Run the command line; a mistake is one sentence and exit code 1."""
    run_app(app)


if __name__ == "__main__":
    main()
