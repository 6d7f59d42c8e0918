"""The potential that a training starts from: new, pretrained, or restored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from ase.data import chemical_symbols

from pet_mlip.config import Config
from pet_mlip.data.baseline import fit_baseline
from pet_mlip.data.batch import collate
from pet_mlip.data.sampler import AtomBudgetBatchSampler
from pet_mlip.errors import UserError
from pet_mlip.model.hypers import PETHypers
from pet_mlip.model.potential import Potential
from pet_mlip.train.checkpoint import load_checkpoint, read_checkpoint
from pet_mlip.train.output import LOG, log_table
from pet_mlip.train.setup import DataSets, composition_baseline, energy_scale

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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        potential = Potential(data.species, config.model, config.symmetrization)
    potential.set_dtype(DTYPES[config.training.precision])
    potential.set_baseline(baseline.energies, scale)
    return Start(potential, scale)


def inherit_model(config: Config, resumed: dict[str, Any] | None) -> Config:
    """The configuration with the model of the checkpoint ``training.init``.

    Args:
        config: As the user wrote it.
        resumed: The checkpoint of the training to be resumed, which has that model already.

    Raises:
        UserError: if the configuration asks for another model.
    """
    path = config.training.init
    if path is None:
        return config
    saved = (resumed or read_checkpoint(path))["config"]
    model = PETHypers(**saved["model"])
    for name in sorted(config.model.model_fields_set):
        asked, found = getattr(config.model, name), getattr(model, name)
        if asked != found:
            raise UserError(
                f"model.{name} is {asked}, but the checkpoint {path} (training.init) has {found}; "
                "leave the key out to take over its model."
            )
    update: dict[str, Any] = {"model": model}
    if "symmetrization" not in config.model_fields_set:
        update["symmetrization"] = type(config.symmetrization)(**saved["symmetrization"])
    return config.model_copy(update=update)


def pretrained_potential(config: Config, data: DataSets) -> Start:
    """The averaged weights of ``training.init`` with a baseline that fits the new energies.

    Raises:
        UserError: if the checkpoint lacks an element of the data.
    """
    path = str(config.training.init)
    before, _, _ = load_checkpoint(path)
    absent = [chemical_symbols[z] for z in data.species if z not in before.species]
    if absent:
        raise UserError(f"The checkpoint {path} (training.init) does not know {', '.join(absent)}.")
    potential = Potential(before.species, config.model, config.symmetrization)
    potential.set_dtype(DTYPES[config.training.precision])
    potential.load_state_dict(before.state_dict())
    refit_composition(potential, config, data)
    baseline = composition_baseline(config, data)
    return Start(potential, energy_scale(data, baseline))


def refit_composition(potential: Potential, config: Config, data: DataSets) -> None:
    """Shift the energy of each element such that the predictions fit the data on average.

    Another method puts its energies elsewhere, which would dominate the loss of a fine-tuning.
    """
    labelled = [s for s in data.training.structures if s.energy is not None]
    if not labelled:
        return
    predicted = predict_energies(potential, config, data)
    residuals = [
        replace(s, energy=s.energy - float(e))
        for s, e in zip(data.training.structures, predicted, strict=True)
        if s.energy is not None
    ]
    shift = fit_baseline(residuals)
    LOG.info("Corrections of the composition baseline (least squares of reference - prediction):")
    log_table(shift.table())
    numbers = potential.state_dict()
    old = dict(zip(potential.species, numbers["composition"].tolist(), strict=True))
    new = {z: energy + shift.energies.get(z, 0.0) for z, energy in old.items()}
    potential.set_baseline(new, float(numbers["scale"]))


def predict_energies(potential: Potential, config: Config, data: DataSets) -> list[float]:
    """Energies of the training structures in eV, in the declared inference mode."""
    training = config.training
    sampler = AtomBudgetBatchSampler(
        data.training.sizes.tolist(),
        training.batch_size,
        training.max_atoms_per_batch,
        shuffle=False,
    )
    energies: list[float] = []
    with torch.no_grad():
        for refs in sampler:
            batch = collate(data.training.__getitems__(refs))
            atomic = potential(batch.graph)
            sums = atomic.new_zeros(batch.n_structures).index_add(0, batch.structure, atomic)
            energies += sums.tolist()
    return energies
