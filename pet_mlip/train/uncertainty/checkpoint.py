"""Uncertainties of a checkpoint: fitted and written into it, or taken out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pet_mlip.config import Config
from pet_mlip.data.dataset import AtomsDataset
from pet_mlip.train.checkpoint import read_checkpoint, restore_potential, write_checkpoint
from pet_mlip.train.output import LOG
from pet_mlip.train.uncertainty.fit import Amount, fit_uncertainty


def add_uncertainty(
    checkpoint: Path,
    config: Config,
    training: AtomsDataset,
    validation: AtomsDataset,
    thorough: bool = True,
) -> None:
    """Fit the uncertainties of a checkpoint's averaged weights, and write them into it.

    Args:
        checkpoint: It is replaced by one that has nothing else that is new.
        config: As for `fit_uncertainty`.
        training: As for `fit_uncertainty`.
        validation: As for `fit_uncertainty`.
        thorough: Whether to look at all that could change something, however short the training.

    Raises:
        UserError: The validation set has too few labels.
    """
    content = read_checkpoint(checkpoint)
    potential = restore_potential(content, "average")
    amount = Amount()
    if not thorough:
        batch = float(config.training.batch_size)
        amount = Amount.after(content["summary"]["steps"] * batch * float(training.sizes.mean()))
    found = fit_uncertainty(potential, config, training, validation, amount)
    potential.uncertainty.set(found.posterior)
    content["uncertainty"] = potential.uncertainty.content()
    content["summary"]["uncertainty"] = found.facts
    write_checkpoint(checkpoint, content)
    LOG.info("Uncertainties: %s.", describe(found.facts))


def remove_uncertainty(checkpoint: Path) -> None:
    """Take the uncertainties out of a checkpoint, if there are any."""
    content = read_checkpoint(checkpoint)
    if content.pop("uncertainty", None) is not None:
        content["summary"].pop("uncertainty", None)
        write_checkpoint(checkpoint, content)


def describe(facts: dict[str, Any]) -> str:
    """Say how well uncertainties fit to the validation set."""
    parts = [
        f"{100 * facts[f'{name}_within'][0]:.0f} % of {facts[f'{name}_labels']} {what} of the "
        "validation set lie within one standard deviation"
        for name, what in (("energy", "energies"), ("force", "force components"))
        if facts[f"{name}_labels"] > 0
    ]
    return ", ".join(parts)
