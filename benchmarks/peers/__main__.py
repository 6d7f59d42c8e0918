"""The command line: ``python -m benchmarks.peers``, in a clone of the repository."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command import check_no_file, make_app, run_app
from benchmarks.peers.contestants import CONTESTANTS
from benchmarks.peers.plot import plot
from benchmarks.peers.report import markdown, read_page, read_results, summary, update_page
from benchmarks.peers.settings import CLOCKS, SHAPES, Settings
from benchmarks.peers.suite import run
from pet_mlip.errors import UserError
from pet_mlip.files import check_writable, write_text

FILES = ("results.json", "report.md", "benchmark.png")

app = make_app()


@app.command()
def bench(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for all results.")] = Path(
        "bench"
    ),
    structures: Annotated[
        str,
        typer.Option(
            help="Names and groups with commas between: compare, ecse, growth, all, large (for "
            "GPUs), or such as aspirin,water-192."
        ),
    ] = "all",
    contestants: Annotated[
        str,
        typer.Option(
            help=f"Some of {', '.join(CONTESTANTS)} with commas between, or all; those that are "
            "not installed are left out."
        ),
    ] = "all",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds: everyone once in each.")] = 9,
    seconds: Annotated[
        float,
        typer.Option(
            min=0, help="Fewer rounds, at least one, where they would take longer, per structure."
        ),
    ] = 60.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each contestant.")] = 2,
    clock: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(CLOCKS)}: cpu is processor time of all threads, auto is cpu with one "
            "thread."
        ),
    ] = "auto",
    shape: Annotated[
        str,
        typer.Option(
            help=f"The PET: {', '.join(SHAPES)}; default is metatrain's; ours is this package's, "
            "which no other can evaluate; tiny is for a quick try."
        ),
    ] = "default",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    peer_atoms: Annotated[
        int,
        typer.Option(help="Largest structure for those that evaluate everything in one piece."),
    ] = 5000,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="GiB that each contestant may take (CPU); by default most of what is free.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights and of the moves between calls.")] = 0,
    update: Annotated[
        Path | None,
        typer.Option(
            help="Page, such as README.md, whose part between <!-- bench --> and <!-- /bench --> "
            "is replaced by the tables."
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Show the results.json of an earlier run instead of measuring."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results in the output folder.")
    ] = False,
) -> None:
    """Time, memory and accuracy of this package and its peers, on the same random weights.

    Everyone has a process of its own, and all are called in turn: energy, forces and stress with
    the neighbour list, atoms moved a little between calls. Writes results.json, report.md and
    benchmark.png. Peers are metatrain (through metatomic's calculator), pet-kokkos and MACE, where
    installed: make peers.
    """
    if update is not None:
        read_page(update)
    if results is not None:
        found = read_results(results)
        text = summary(found)
    else:
        settings = Settings(
            structures=structures,
            contestants=contestants,
            repeats=repeats,
            seconds=seconds,
            threads=threads,
            clock=clock,
            shape=shape,
            device=device,
            peer_atoms=peer_atoms,
            memory=memory,
            seed=seed,
        )
        found = measure(settings, output, overwrite)
        text = markdown(found)
    if update is not None:
        update_page(update, found)
    print(text)


def measure(settings: Settings, output: Path, overwrite: bool = False) -> dict[str, Any]:
    """Run the benchmark and write its files after each structure.

    Raises:
        UserError: An option makes no sense, or there are results in the folder.
    """
    check_no_file(output)
    if not overwrite and any((output / name).exists() for name in FILES):
        raise UserError(
            f"{output} holds results already: replace them with --overwrite, or choose another "
            "--output."
        )
    check_writable(output)

    def keep(results: dict[str, Any]) -> None:
        write_text(output / FILES[0], json.dumps(results, indent=1))
        write_text(output / FILES[1], markdown(results))
        plot(output / FILES[2], results)

    def say(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    return run(settings, say, keep)


def main() -> None:
    """Run the command line; a mistake is one sentence and exit code 1."""
    run_app(app)


if __name__ == "__main__":
    main()
