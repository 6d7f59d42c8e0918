"""``pet-mlip train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet_mlip.cli.common import resume_command


def train(
    config: Annotated[
        Path,
        typer.Argument(help="Configuration (YAML); all keys: `python -m pet_mlip.config`."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="Change one key, as in --set training.epochs=10; may be repeated.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for all results; default: the config's name."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the training in the output folder.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete a training in the output folder first.")
    ] = False,
) -> None:
    """Train a potential: checkpoints, metrics, the exported model.pt and a report in one folder.

    Ctrl-C stops after the current step; the same command with --resume then continues as if
    nothing had happened.
    """
    # These imports take seconds, which --help need not wait for.
    from pet_mlip.config import load_config
    from pet_mlip.train import TrainingInterrupted, run_training

    folder = output or Path(config.stem)
    try:
        run_training(
            load_config(config, overrides or []), folder, resume=resume, overwrite=overwrite
        )
    except TrainingInterrupted as interrupted:
        if interrupted.first:
            command = resume_command("train", config, overrides, folder)
            typer.echo(f"Interrupted. To continue: {command}", err=True)
        raise typer.Exit(128 + interrupted.signal) from None
    except KeyboardInterrupt:
        typer.echo("Interrupted outside the training loop.", err=True)
        raise typer.Exit(130) from None
