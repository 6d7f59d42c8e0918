"""The command line: ``python -m benchmarks.learning``, in a clone of the repository."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import check_no_file, make_app, run_app
from benchmarks.learning import contestants as who
from benchmarks.learning import sets as what
from benchmarks.learning.plot import plot
from benchmarks.learning.report import Results, curves_of, markdown, table
from benchmarks.learning.suite import Settings, run
from pet_mlip.files import check_writable, write_text

app = make_app()


@app.command()
def learn(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for all results.")] = Path(
        "learning"
    ),
    sets: Annotated[
        str, typer.Option(help=f"Some of {', '.join(what.SETS)} with commas between, or all.")
    ] = "all",
    contestants: Annotated[
        str,
        typer.Option(help=f"Some of {', '.join(who.CONTESTANTS)} with commas between, or all."),
    ] = "ours,mace,metatrain",
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="Budget of each training; by default 12 to 60, by set."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of splits and of everyone's weights.")] = 0,
    structures: Annotated[
        int | None,
        typer.Option(min=2, help="Train on a random choice of so many of each set, at most."),
    ] = None,
    ours_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY.PATH=VALUE",
            help="Change one key of this package's default configuration; may be repeated.",
        ),
    ] = None,
) -> None:
    """Train this package, MACE and metatrain's PET on the same files for the same time.

    Each has one core, and two trainings run at a time. Writes learning.json, learning.md and
    learning.png, and the curves of each set in its folder. What is finished in the output folder
    is not repeated, so that the same command continues an interrupted benchmark.
    """
    chosen, taking_part = what.choose(sets, data), who.choose(contestants)
    check_no_file(output)
    check_writable(output)
    settings = Settings(data, output, minutes, seed, tuple(ours_set or ()), structures)

    def keep(results: Results) -> None:
        for name, entries in results["sets"].items():
            write_text(output / name / "curves.json", json.dumps(curves_of(entries), indent=1))
        write_text(output / "learning.json", json.dumps(results, indent=1))
        write_text(output / "learning.md", markdown(results))
        plot(output / "learning.png", results)

    def say(sentence: str) -> None:
        sys.stderr.write(f"{sentence}\n")  # in one piece, since two threads may speak

    print(table(run(chosen, taking_part, settings, say, keep)))


def main() -> None:
    """Run the command line; a mistake is one sentence and exit code 1."""
    run_app(app)


if __name__ == "__main__":
    # When this is terminated, so are the trainings.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
