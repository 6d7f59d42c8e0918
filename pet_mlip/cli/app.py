"""The command `pet-mlip`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.markup import escape

from pet_mlip.cli.common import stderr
from pet_mlip.cli.convert import convert
from pet_mlip.cli.evaluate import evaluate
from pet_mlip.cli.export import export
from pet_mlip.cli.info import info
from pet_mlip.cli.lammps import app as lammps
from pet_mlip.cli.learn import learn
from pet_mlip.cli.md import md
from pet_mlip.cli.schema import schema
from pet_mlip.cli.train import train
from pet_mlip.cli.uncertainty import uncertainty
from pet_mlip.errors import UserError
from pet_mlip.files import describe
from pet_mlip.version import __version__

app = typer.Typer(
    name="pet-mlip",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train)
app.command("schema")(schema)
app.command("eval")(evaluate)
app.command("export")(export)
app.command("convert")(convert)
app.command("info")(info)
app.command("learn")(learn)
app.command("md")(md)
app.command("uncertainty")(uncertainty)
app.add_typer(lammps, name="lammps", help="Build, find, check and run LAMMPS' pair_style pet.")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pet-mlip {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """PET with exact rotational symmetry (ECSE): train, evaluate, export, and try potentials."""


def main() -> None:
    """Run the command line; mistakes, and files that fail, are one red sentence and exit code 1."""
    try:
        app()
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (UserError, OSError) as error:
        message = describe(error) if isinstance(error, OSError) else str(error)
        stderr().print(f"[red]Error:[/red] {escape(message)}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
