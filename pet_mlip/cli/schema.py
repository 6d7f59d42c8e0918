"""``pet-mlip schema``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from pet_mlip.errors import UserError
from pet_mlip.files import write_text


class Kind(str, Enum):
    """Which configuration."""

    train = "train"
    learn = "learn"


def schema(
    kind: Annotated[
        Kind, typer.Argument(help="Of the configurations of `pet-mlip train` or `learn`.")
    ] = Kind.train,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: print it.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Print the JSON schema of a configuration, for completion and errors while typing.

    Editors with the YAML language server read it where the first line of a configuration is
    `# yaml-language-server: $schema=FILE`.
    """
    from pet_mlip.config import Config
    from pet_mlip.config.json_schema import json_schema
    from pet_mlip.learn.config import LearnConfig

    if kind is Kind.train:
        text = json_schema(Config, "Training of a pet_mlip potential")
    else:
        text = json_schema(LearnConfig, "Learning of a pet_mlip potential on the fly")
    if output is None:
        print(text, end="")
        return
    if output.exists() and not force:
        raise UserError(f"{output} exists already; give another --output, or --force.")
    write_text(output, text)
