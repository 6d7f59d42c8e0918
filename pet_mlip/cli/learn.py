"""``pet-mlip learn``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet_mlip.cli.common import resume_command

INTERRUPTED = 130
NOT_PASSED = 2


def learn(
    config: Annotated[
        Path,
        typer.Argument(help="Configuration (YAML); all keys: `python -m pet_mlip.learn`."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="Change one key, as in --set rounds=3; may be repeated.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for all results; default: the config's name."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the learning in the output folder.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete a learning in the output folder first.")
    ] = False,
) -> None:
    """Learn a potential from nothing but structures and a reference: ASE calculator or command.

    Rounds of labels, training, and molecular dynamics that looks for structures of which the model
    is uncertain, until a round's simulations hold none. Whatever stops it, the same command with
    --resume goes on. The exit code is 2 if the last round did not pass.
    """
    # These imports take seconds, which --help need not wait for.
    from pet_mlip.learn.config import load_learn_config
    from pet_mlip.learn.loop import learn as run
    from pet_mlip.train import TrainingInterrupted

    folder = output or Path(config.stem)
    chosen = load_learn_config(config, overrides or [])
    try:
        passed = run(chosen, folder, resume=resume, overwrite=overwrite)
    except (TrainingInterrupted, KeyboardInterrupt):
        command = resume_command("learn", config, overrides, folder)
        typer.echo(f"Interrupted. To continue: {command}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not passed:
        raise typer.Exit(NOT_PASSED)
