"""`pet-mlip bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pet_mlip.bench.contestants import CONTESTANTS
from pet_mlip.cli.common import stderr, stdout
from pet_mlip.errors import UserError
from pet_mlip.files import check_writable, write_text

FILES = ("results.json", "report.md", "benchmark.png")


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
            help="wall, cpu (processor time of all threads), or auto: cpu with one thread."
        ),
    ] = "auto",
    shape: Annotated[
        str,
        typer.Option(help="The PET: default (metatrain's), upet-s, or tiny, for a quick try."),
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
    r"""Time, memory and accuracy of this package and its peers, on the same random weights.

    Everyone has a process of its own, and all are called in turn: energy, forces and stress with
    the neighbour list, atoms moved a little between calls. Writes results.json, report.md and
    benchmark.png. Peers are metatrain (through metatomic's calculator), pet-kokkos and MACE, where
    installed: pip install '.\[bench]'.
    """
    from pet_mlip.bench.report import markdown, read_page, read_results, summary, update_page

    if update is not None:
        read_page(update)
    if results is not None:
        found = read_results(results)
        text = summary(found)
    else:
        options = {
            "structures": structures,
            "contestants": contestants,
            "repeats": repeats,
            "seconds": seconds,
            "threads": threads,
            "clock": clock,
            "shape": shape,
            "device": device,
            "peer_atoms": peer_atoms,
            "memory": memory,
            "seed": seed,
        }
        found = measure(output, overwrite, options)
        text = markdown(found)
    if update is not None:
        update_page(update, found)
    stdout().print(text, markup=False, soft_wrap=True)


def measure(output: Path, overwrite: bool, options: dict[str, Any]) -> dict[str, Any]:
    """Run the benchmark and write its files after each structure.

    Raises:
        UserError: An option makes no sense, or there are results in the folder.
    """
    from pet_mlip.bench.plot import plot
    from pet_mlip.bench.report import markdown
    from pet_mlip.bench.settings import Settings
    from pet_mlip.bench.suite import run

    settings = Settings(**options)
    if output.is_file():
        raise UserError(f"--output {output} is a file; give a folder.")
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
        stderr().print(sentence, markup=False, soft_wrap=True)

    return run(settings, say, keep)
