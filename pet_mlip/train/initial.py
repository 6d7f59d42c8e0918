"""The potential that a training starts from: new or pretrained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pet_mlip.config import Config
from pet_mlip.config.sizes import SIZES
from pet_mlip.data.baseline import fit_baseline
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.results import Result
from pet_mlip.train.checkpoint import load_checkpoint, read_checkpoint
from pet_mlip.train.loss import Loss
from pet_mlip.train.output import LOG, log_table
from pet_mlip.train.predictions import errors_table, predict_energies
from pet_mlip.train.refit import refit_baseline
from pet_mlip.train.setup import (
    DataSets,
    composition_baseline,
    energy_scale,
    set_result_baselines,
)
from pet_mlip.train.species import choose_species, transfer_weights

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float64": torch.float64}


@dataclass
class Start:
    """A potential with its baseline, and the scale of the loss in eV."""

    potential: Potential
    scale: float


def new_potential(config: Config, data: DataSets) -> Start:
    """Random weights (from training.seed), a fitted baseline, and the scale of the forces."""
    baseline = composition_baseline(config, data)
    log_table(baseline.table())
    scale = energy_scale(data, baseline)
    potential = empty_potential(config, data.species)
    potential.set_baseline(baseline.energies, scale)
    start_at(potential, baseline.mean_residual)
    set_result_baselines(potential, config.model.results, data)
    return Start(potential, scale)


def start_at(potential: Potential, energy: float) -> None:
    """Let a new network begin with what the baseline leaves of the energy per atom on average.

    Args:
        potential: The constant of its last layer is changed.
        energy: eV; nothing happens if it is not known.
    """
    if math.isfinite(energy):
        readout: Any = potential.pet.readouts[-1]
        with torch.no_grad():
            readout.node_head.last.bias += energy / float(potential.scale)


def empty_potential(config: Config, species: list[int]) -> Potential:
    """The configured architecture with random weights, in the configured dtype."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        potential = Potential(species, config.model, config.symmetrization, config.data.subtract)
    return potential.set_dtype(DTYPES[config.training.precision])


def inherit_model(config: Config, resumed: dict[str, Any] | None) -> Config:
    """The configuration with what it leaves open of the checkpoint ``training.init_from``.

    That is the model, the symmetrization, and what is subtracted from the labels.

    Args:
        config: As the user wrote it.
        resumed: The checkpoint of the training to be resumed, which has that model already.

    Raises:
        UserError: if the configuration asks for another model.
    """
    path = config.training.init_from
    if path is None:
        return config
    saved = (resumed or read_checkpoint(path))["potential"]
    model = PETHypers(**saved["pet"])
    for name in sorted(config.model.model_fields_set - {"results"}):
        asked, found = getattr(config.model, name), getattr(model, name)
        if asked != found:
            key, where = f"model.{name}", ""
            if SIZES[config.size].get(name) == asked:
                key, where = "size", f" (size: {config.size})"
            raise UserError(
                f"model.{name} is {asked}{where}, but the checkpoint {path} (training.init_from) "
                f"has {found}; leave {key} out to take over its model."
            )
    update: dict[str, Any] = {"model": with_more_results(model, config.model.results, path)}
    if "symmetrization" not in config.model_fields_set:
        update["symmetrization"] = SymmetrizationHypers(**saved["symmetrization"])
    if "subtract" not in config.data.model_fields_set:
        update["data"] = config.data.model_copy(update={"subtract": saved["subtracted"]})
    return config.model_copy(update=update)


def with_more_results(model: PETHypers, asked: Mapping[str, Result], path: str) -> PETHypers:
    """The checkpoint's model with the results that the configuration adds.

    Raises:
        UserError: if one is declared differently.
    """
    for name, result in asked.items():
        found = model.results.get(name, result)
        if found != result:
            raise UserError(
                f"model.results.{name} is {result!r}, but the checkpoint {path} "
                f"(training.init_from) has {found!r}; leave it out, or choose another name."
            )
    return model.model_copy(update={"results": {**model.results, **asked}})


def pretrained_potential(config: Config, data: DataSets, first: bool = True) -> Start:
    """The averaged weights of ``training.init_from`` with a baseline that fits the new energies.

    Errors on the validation set, of the checkpoint as it is and of this start, go into the log of
    the first process.

    Raises:
        UserError: if elements of the data, the checkpoint and the configuration do not match.
    """
    before, _, _ = load_checkpoint(str(config.training.init_from))
    potential = empty_potential(config, choose_species(before.species, data.species, config))
    transfer_weights(before, potential)
    new = [name for name in potential.result_names if name not in before.result_names]
    for name in before.result_names:
        if (
            config.training.loss.weight_of_result(name) == 0
            and "backbone" not in config.training.freeze
        ):
            LOG.warning(
                "%s has weight 0: its readout stays as it is while the features that it reads "
                "change, so that the new model's %s will be wrong.",
                *(name, name),
            )
    set_result_baselines(potential, new, data)
    log_modes(before.symmetrization, config.symmetrization)
    if before.subtracted != potential.subtracted:
        LOG.warning(
            "data.subtract is %s, but it was %s for the checkpoint: this start is wrong by the "
            "difference, which has to be learned.",
            *(potential.subtracted or "null", before.subtracted or "null"),
        )
    energies = predict_energies(potential, config, data.training)
    log_table(refit_baseline(potential, before.species, config, data, energies))
    scale = energy_scale(data, fit_baseline(data.training.structures))
    if first:
        starts = {"checkpoint": before, "this start": potential}
        loss = Loss(config.training.loss, scale, potential.scales_of_results())
        log_table(errors_table(starts, config, data.validation, loss))
    return Start(potential, scale)


def log_modes(before: SymmetrizationHypers, after: SymmetrizationHypers) -> None:
    """Say where the symmetrization changes, and what that does to the predictions."""
    if before == after:
        return
    LOG.info(
        "Symmetrization: the checkpoint has %s (trained with %s), this training %s (with %s).",
        *(before.ensemble, before.train, after.ensemble, after.train),
    )
    if before.train == "structure" and after.ensemble != "none":
        LOG.info(
            "The checkpoint has never seen what the ensemble makes of its neighbours, an average "
            "over frames; the table of errors tells what that costs before fine-tuning."
        )
