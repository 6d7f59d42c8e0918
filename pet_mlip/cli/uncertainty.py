"""``pet-mlip uncertainty``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_mlip.cli.common import pairs_table, stderr, stdout
from pet_mlip.errors import UserError

if TYPE_CHECKING:
    from pet_mlip.config import Config
    from pet_mlip.engine.potential import Potential


def uncertainty(
    trained: Annotated[
        Path, typer.Argument(help="Output folder of a training, or a checkpoint (.ckpt).")
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            help="Configuration (YAML) with the training and validation data; by default that of "
            "the training."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="Change one key of it, as in --set data.validation=other.xyz; may be repeated.",
        ),
    ] = None,
) -> None:
    """Let a trained model know its uncertainty, or find it anew with other data.

    Looks at the training data for what the last layers' weights are fixed by, and at the errors on
    the validation data for how large uncertainties are. Both stay in the checkpoint, whose weights
    do not change; in the folder of a training model.pt is exported anew. Trainings do this at their
    end by themselves.
    """
    from pet_mlip.train.checkpoint import load_checkpoint, read_checkpoint
    from pet_mlip.train.setup import load_data
    from pet_mlip.train.uncertainty.checkpoint import add_uncertainty

    checkpoint = trained / "best.ckpt" if trained.is_dir() else trained
    chosen = configuration(checkpoint, read_checkpoint(checkpoint), config, overrides or [])
    data = load_data(chosen, stderr())
    add_uncertainty(checkpoint, chosen, data.training, data.validation)
    potential, _, summary = load_checkpoint(checkpoint)
    written = [str(checkpoint)]
    exported = checkpoint.with_name("model.pt")
    if trained.is_dir() and exported.is_file():
        written.append(export_anew(exported, potential, summary))
    found = summary["uncertainty"]
    facts = {
        "energies within 1 and 2 sigma": percent(found["energy_within"], found["energy_labels"]),
        "force components": percent(found["force_within"], found["force_labels"]),
        "of a normal distribution": "68 %, 95 %",
        "members": potential.uncertainty.shape()["members"],
        "written": " and ".join(written),
    }
    stdout().print(pairs_table("Uncertainties on the validation set", facts))


def configuration(
    checkpoint: Path, content: dict[str, Any], config: Path | None, overrides: Sequence[str]
) -> Config:
    """Choose the data; neighbours and what labels lack are the model's in any case.

    Raises:
        UserError: A configuration is wrong, or asks for what cannot be.
    """
    from pet_mlip.config.load import apply_override, load_config, validate
    from pet_mlip.graph.hypers import PETHypers

    if config is None:
        tree = content["config"]
        for override in overrides:
            apply_override(tree, override)
        chosen = validate(tree, f"the configuration in {checkpoint}")
    else:
        chosen = load_config(config, overrides)
    if chosen.training.uncertainty_members == 0:
        raise UserError(
            "training.uncertainty_members is 0: give --set training.uncertainty_members=8."
        )
    subtracted = content["potential"]["subtracted"]
    if "subtract" in chosen.data.model_fields_set and chosen.data.subtract != subtracted:
        asked, known = chosen.data.subtract or "null", subtracted or "null"
        raise UserError(
            f"data.subtract is {asked}, but was {known} when {checkpoint} was trained: leave it "
            "out, and the same is subtracted here."
        )
    model = PETHypers(**content["potential"]["pet"])
    data = chosen.data.model_copy(update={"subtract": subtracted})
    return chosen.model_copy(update={"model": model, "data": data})


def export_anew(path: Path, potential: Potential, summary: dict[str, Any]) -> str:
    """Export a model once more as it was, unless its frames are others; say what was done."""
    from pet_mlip.export import read_metadata, save_model

    before = read_metadata(path)
    if before.symmetrization["ensemble"] != potential.symmetrization.ensemble:
        return f"not {path}, whose frames are others than those of the training"
    save_model(
        path,
        potential,
        dtype=before.dtype,
        training_summary=summary,
        orientations=before.symmetrization["orientations"],
    )
    return str(path)


def percent(fractions: list[float | None], count: int) -> str:
    """Print fractions of so many labels."""
    if count == 0:
        return "no labels"
    parts = ", ".join(f"{100 * x:.0f} %" for x in fractions if x is not None)
    return f"{parts} of {count}"
