"""What a potential says before its training starts."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import torch
from rich.table import Table

from pet_mlip.config import Config, TrainingConfig
from pet_mlip.data.batch import Batch, collate
from pet_mlip.data.dataset import AtomsDataset
from pet_mlip.data.sampler import AtomBudgetBatchSampler
from pet_mlip.engine.derivatives import predict
from pet_mlip.engine.potential import Potential
from pet_mlip.train.loss import ErrorSums, Loss, compare
from pet_mlip.train.memory import MemoryBudget


def predict_energies(potential: Potential, config: Config, dataset: AtomsDataset) -> list[float]:
    """Energies of the structures in eV, in the declared inference mode."""
    device = first_device(config.training)
    potential.to(device)
    energies: list[float] = []
    memory = MemoryBudget(potential, config.training.memory_gb, device)
    for batch in batches(memory, dataset, config, device):
        found = predict(
            potential,
            batch.graph,
            batch.structure,
            batch.n_structures,
            derivatives=False,
            chunk_size=memory.chunk_size,
        )
        energies += found.energy.tolist()
    potential.cpu()
    return energies


def errors_table(
    potentials: dict[str, Potential], config: Config, dataset: AtomsDataset, loss: Loss
) -> Table:
    """Errors of potentials in their own inference modes, over the structures that they know.

    Args:
        potentials: With their titles.
        config: Batch limits, loss, device.
        dataset: The validation set.
        loss: Of the training to come.
    """
    table = Table(
        title="Before the first step: RMSE on the validation set in meV/atom, meV/Å, meV/Å³",
        title_justify="left",
    )
    for name in ("", "ensemble"):
        table.add_column(name)
    for name in ("structures", *loss.targets):
        table.add_column(name, justify="right")
    for title, potential in potentials.items():
        known = known_structures(potential, dataset)
        found = errors(potential, config, known, loss) if len(known) else {}
        values = [found.get(f"{target}_rmse", math.nan) for target in loss.targets]
        cells = ["-" if math.isnan(x) else f"{x:.4g}" for x in values]
        table.add_row(title, potential.symmetrization.ensemble, str(len(known)), *cells)
    return table


def errors(
    potential: Potential, config: Config, dataset: AtomsDataset, loss: Loss
) -> dict[str, float]:
    """Validation loss and errors, as `ErrorSums` has them."""
    device = first_device(config.training)
    potential.to(device)
    sums = ErrorSums(loss, device)
    memory = MemoryBudget(potential, config.training.memory_gb, device)
    for batch in batches(memory, dataset, config, device):
        found = predict(
            potential,
            batch.graph,
            batch.structure,
            batch.n_structures,
            chunk_size=memory.chunk_size,
        )
        sums.add(compare(found, batch))
    potential.cpu()
    return sums.result()


def known_structures(potential: Potential, dataset: AtomsDataset) -> AtomsDataset:
    """The structures without elements that the potential lacks."""
    known = [s for s in dataset.structures if set(s.species.tolist()) <= set(potential.species)]
    complete = len(known) == len(dataset) and potential.cutoff == dataset.cutoff
    return dataset if complete else AtomsDataset(known, potential.cutoff)


def batches(
    memory: MemoryBudget, dataset: AtomsDataset, config: Config, device: torch.device
) -> Iterator[Batch]:
    """All structures in the order of the files, in batches that the memory holds."""
    training = config.training
    sampler = AtomBudgetBatchSampler(
        dataset.sizes.tolist(),
        training.structures_per_batch,
        training.max_atoms_per_batch,
        shuffle=False,
    )
    for refs in sampler:
        batch = collate(dataset.__getitems__(refs)).to(device)
        yield from memory.split_validation(batch)


def first_device(training: TrainingConfig) -> torch.device:
    """The device that this process is going to train on, before Lightning has told it."""
    if training.accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
