"""What the command lines of all benchmarks have in common."""

from __future__ import annotations

import gzip
import shutil
import sys
from pathlib import Path

import ase.io
import typer
from ase import Atoms

from pet_mlip.errors import UserError


def make_app() -> typer.Typer:
    """Return an application without commands yet."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run_app(app: typer.Typer) -> None:
    """Run a command line; a mistake is one sentence and exit code 1."""
    try:
        app()
    except UserError as error:
        sys.exit(f"Error: {error}")


def check_no_file(output: Path) -> None:
    """Refuse a file as the folder of all results.

    Raises:
        UserError: It is one.
    """
    if output.is_file():
        raise UserError(f"--output {output} is a file; give a folder.")


def write_packed(path: Path, structures: list[Atoms]) -> None:
    """Write structures to a .xyz.gz; what a killed run leaves is not taken for it."""
    plain, packed = path.with_suffix(".plain"), path.with_suffix(".part")
    ase.io.write(plain, structures, format="extxyz")
    with open(plain, "rb") as source, gzip.open(packed, "wb") as target:
        shutil.copyfileobj(source, target)
    packed.replace(path)
    plain.unlink()
