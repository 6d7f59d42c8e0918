"""``pet-mlip uncertainty``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet_mlip.cli.common import pairs_table, stderr, stdout
from pet_mlip.errors import UserError


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
    from pet_mlip.config.load import apply_override, load_config, validate
    from pet_mlip.export import read_metadata, save_model
    from pet_mlip.graph.hypers import PETHypers
    from pet_mlip.train.checkpoint import load_checkpoint, read_checkpoint
    from pet_mlip.train.setup import load_data
    from pet_mlip.train.uncertainty import add_uncertainty

    checkpoint = trained / "best.ckpt" if trained.is_dir() else trained
    content = read_checkpoint(checkpoint)
    if config is None:
        tree = content["config"]
        for override in overrides or []:
            apply_override(tree, override)
        chosen = validate(tree, f"the configuration in {checkpoint}")
    else:
        chosen = load_config(config, overrides or [])
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
    # Neighbours and labels are those of the model, whatever the configuration says.
    model = PETHypers(**content["potential"]["pet"])
    labels = chosen.data.model_copy(update={"subtract": subtracted})
    chosen = chosen.model_copy(update={"model": model, "data": labels})
    data = load_data(chosen, stderr())
    add_uncertainty(checkpoint, chosen, data.training, data.validation)
    potential, _, summary = load_checkpoint(checkpoint)
    exported = checkpoint.with_name("model.pt")
    written = [str(checkpoint)]
    if trained.is_dir() and exported.is_file():
        before = read_metadata(exported)
        if before.symmetrization["ensemble"] == potential.symmetrization.ensemble:
            written.append(str(exported))
            save_model(
                exported,
                potential,
                dtype=before.dtype,
                training_summary=summary,
                orientations=before.symmetrization["orientations"],
            )
        else:
            written.append(f"not {exported}, whose frames are others than those of the training")
    found = summary["uncertainty"]
    facts = {
        "energies within 1 and 2 sigma": percent(found["energy_within"], found["energy_labels"]),
        "force components": percent(found["force_within"], found["force_labels"]),
        "of a normal distribution": "68 %, 95 %",
        "members": potential.uncertainty.shape()["members"],
        "written": " and ".join(written),
    }
    stdout().print(pairs_table("Uncertainties on the validation set", facts))


def percent(fractions: list[float | None], count: int) -> str:
    """Print fractions of so many labels."""
    if count == 0:
        return "no labels"
    parts = ", ".join(f"{100 * x:.0f} %" for x in fractions if x is not None)
    return f"{parts} of {count}"
