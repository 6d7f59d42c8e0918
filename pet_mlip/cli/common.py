"""What the commands share: terminals, progress bars, options, tables."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pet_mlip.errors import UserError

if TYPE_CHECKING:
    from pet_mlip.ase.calculator import PETCalculator

Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:N.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Precision of the network: float64, float32, tf32 or bf16-mixed; default: the file's."
    ),
]
ChunkSize = Annotated[
    int | None,
    typer.Option(
        min=0, help="Attention tokens evaluated at once, which bounds the memory; 0: no bound."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def stdout() -> Console:
    """Console for results."""
    return Console(highlight=False)


def stderr() -> Console:
    """Console for everything that is not a result."""
    return Console(stderr=True, highlight=False)


def progress_bar(*columns: str) -> Progress:
    """A bar on stderr with a count, the time, and further text fields.

    Args:
        columns: Names of task fields to show.
    """
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *(TextColumn(f"{{task.fields[{name}]}}") for name in columns),
        console=stderr(),
    )


def print_json(content: Any) -> None:
    """Print plain JSON on stdout, for other programs."""
    print(json.dumps(content, indent=1, allow_nan=False))


def pairs_table(title: str, pairs: dict[str, Any]) -> Table:
    """A table of names and values."""
    table = Table("", "", title=title, title_justify="left", show_header=False)
    for name, value in pairs.items():
        table.add_row(name, readable(value))
    return table


def readable(value: Any) -> str:
    """A value for a table cell."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "\n".join(f"{key}: {readable(v)}" for key, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(readable(v) for v in value)
    return "-" if value is None else str(value)


def resume_command(command: str, config: Path, overrides: list[str] | None, output: Path) -> str:
    """The command line that continues what a configuration began in a folder."""
    changes = [f"--set {shlex.quote(override)}" for override in overrides or []]
    return " ".join([f"pet-mlip {command}", str(config), *changes, f"--output {output} --resume"])


def refuse_metatrain(path: Path) -> None:
    """Say what to do with a checkpoint of metatrain where one of this package is wanted.

    Raises:
        UserError: If the file is one.
    """
    from pet_mlip.convert import is_metatrain

    if is_metatrain(path):
        raise UserError(
            f"{path} is a checkpoint of metatrain: `pet-mlip convert {path} -o model.pt` makes a "
            "model of this package out of it."
        )


def load_calculator(
    model: Any,
    device: str,
    dtype: str | None,
    chunk_size: int | None,
    symmetrization: str | None = None,
) -> PETCalculator:
    """The calculator of a model, given by its file or loaded."""
    from pet_mlip.ase.calculator import PETCalculator

    return PETCalculator(
        model,
        device=device,
        dtype=dtype,
        chunk_size=chunk_size,
        symmetrization=symmetrization,
    )
