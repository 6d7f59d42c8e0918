"""`pet-mlip compile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet_mlip.cli.common import Device, Dtype, pairs_table, progress_bar, stdout


def compile_(
    model: Annotated[Path, typer.Argument(help="An exported model (.pt).")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; by default MODEL with .pt2."),
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Compile an exported model for this computer.

    What is written runs in ASE and LAMMPS like the model itself, on a CPU about as fast
    (docs/compile.md), but only with the same kind of processor and the same version of torch: the
    .pt file stays the one to keep. Needs a C++ compiler and some minutes. The result is compared
    with the model before it is written.
    """
    from pet_mlip.compile import compile_model

    path = output or model.with_suffix(".pt2")
    with progress_bar() as bar:
        task = bar.add_task("compiling", total=None)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=f"compiling: {what}")

        target = compile_model(
            model, path, device=device, dtype=dtype, overwrite=force, progress=show
        )
    facts = {
        "runs on": target.describe(),
        "compiled functions": len(target.functions),
        "size": f"{path.stat().st_size / 1e6:.1f} MB",
    }
    stdout().print(pairs_table(f"Compiled {path}", facts))
