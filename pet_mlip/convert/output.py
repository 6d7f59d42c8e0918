"""Writing a converted potential: the file that runs, or the checkpoint to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pet_mlip.convert.metatrain import Converted
from pet_mlip.errors import UserError
from pet_mlip.export import Orientations, save_model
from pet_mlip.export.archive import DTYPES
from pet_mlip.files import check_replaceable, check_writable
from pet_mlip.train.checkpoint import write_checkpoint
from pet_mlip.version import __version__

SUFFIXES = (".pt", ".ckpt")


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse a file that cannot or should not be written.

    Raises:
        UserError: If its name does not tell what to write, or it is there already.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"--output {path}: give a name with .pt (a model to run) or .ckpt (a checkpoint to "
            "train on or export)."
        )
    check_replaceable(path)
    check_writable(path.parent)
    if path.exists() and not overwrite:
        raise UserError(
            f"{path} is there already: replace it with --overwrite, or choose another --output."
        )


def write_converted(
    path: Path,
    converted: Converted,
    dtype: str | None = None,
    orientations: Orientations = "none",
) -> str:
    """Write an exported model (``.pt``) or a checkpoint (``.ckpt``).

    Args:
        path: The file; an existing one is replaced.
        converted: What to write.
        dtype: Of the network, float32 or float64; by default as in the converted checkpoint.
        orientations: Average over orientations that calculators take by default.

    Returns:
        The dtype.

    Raises:
        UserError: If the dtype is unknown, or the exported model fails its self-check.
    """
    name = dtype or converted.dtype
    if name not in DTYPES:
        raise UserError(f"--dtype {name} is not known; use float32 or float64.")
    summary = {"converted_from": converted.source}
    if path.suffix == ".pt":
        save_model(
            path,
            converted.potential,
            dtype=name,
            training_summary=summary,
            orientations=orientations,
        )
    else:
        write_checkpoint(path, checkpoint_content(converted, name, summary))
    return name


def checkpoint_content(converted: Converted, dtype: str, summary: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint that can be exported and fine-tuned, but not resumed: its data are not known."""
    potential = converted.potential.set_dtype(DTYPES[dtype])
    state = potential.state_dict()
    known = potential.uncertainty.known()
    return {
        **({"uncertainty": potential.uncertainty.content()} if known else {}),
        "package_version": __version__,
        "config": {
            "model": potential.pet_hypers.model_dump(mode="json"),
            "symmetrization": potential.symmetrization.model_dump(mode="json"),
        },
        "potential": potential.config(),
        "dtype": dtype,
        "weights": state,
        "average": state,
        "summary": summary,
    }
