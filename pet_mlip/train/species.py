"""The weights of a potential in another one that knows other elements."""

from __future__ import annotations

import torch
from ase.data import chemical_symbols
from torch import Tensor

from pet_mlip.config import Config
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.network.pet import PET
from pet_mlip.train.freeze import frozen_parts
from pet_mlip.train.output import LOG


def choose_species(known: list[int], wanted: list[int], config: Config) -> list[int]:
    """Elements of the fine-tuned model, as ``training.add_species`` and ``drop_species`` say.

    Args:
        known: Of the checkpoint.
        wanted: Of the training set.
        config: Of the training.

    Raises:
        UserError: if the checkpoint lacks elements and may not be given them.
    """
    training = config.training
    added = [z for z in wanted if z not in known]
    spare = [z for z in known if z not in wanted]
    if added and not training.add_species:
        raise UserError(
            f"The checkpoint {training.init_from} (training.init_from) does not know "
            f"{names(added)} of the training set; leave out those structures, or set "
            "training.add_species: true to learn what is new from the data."
        )
    if added and "embeddings" in frozen_parts(training.freeze):
        raise UserError(
            f"training.freeze holds the embeddings, but those of {names(added)} (add_species) are "
            "new and have to be trained; freeze layers or heads only."
        )
    if added:
        LOG.info(
            "New elements: %s. Their embeddings start from the mean of those of the checkpoint.",
            names(added),
        )
    if spare and training.drop_species:
        LOG.info("The checkpoint's other elements are dropped: %s.", names(spare))
    elif spare:
        LOG.info(
            "The model keeps %d elements that the training set lacks (%s), which fine-tuning does "
            "not see; training.drop_species: true leaves them out.",
            len(spare),
            names(spare),
        )
    return sorted({*wanted, *(() if training.drop_species else known)})


def names(species: list[int]) -> str:
    """Chemical symbols, the first dozen of many."""
    text = ", ".join(chemical_symbols[z] for z in species[:12])
    return text + (f" and {len(species) - 12} more" if len(species) > 12 else "")


def transfer_weights(source: Potential, target: Potential) -> None:
    """Copy all numbers; rows of elements that the source lacks become the mean of its rows.

    Both have the same architecture, but for results that the source lacks: their readouts stay as
    they are. Baselines of new elements are zero.
    """
    numbers = source.state_dict()
    by_element = tables(target.pet)
    rows = [source.species.index(z) if z in source.species else -1 for z in target.species]
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            if name not in numbers:
                continue  # the readout of a new result
            found = numbers[name]
            if parameter in by_element and found.shape[0] > 0:
                found = select_rows(found, rows)
            parameter.copy_(found)
    # All other buffers follow from elements and architecture.
    energies = dict(zip(source.species, numbers["composition"].tolist(), strict=True))
    baseline = {z: energies.get(z, 0.0) for z in target.species}
    target.set_baseline(baseline, float(numbers["scale"]))
    for k, result in enumerate(source.result_names):
        values = dict(zip(source.species, source.result_baselines[k].tolist(), strict=True))
        known = {z: values.get(z, 0.0) for z in target.species}
        target.set_result_baseline(result, known, float(source.result_scales[k]))


def tables(pet: PET) -> set[Tensor]:
    """Parameters with one row per element."""
    modules = [pet.edge_embedder, *pet.node_embedders]
    modules += [layer.neighbor_embedder for layer in pet.layers]  # type: ignore[misc]
    return {parameter for module in modules for parameter in module.parameters()}


def select_rows(table: Tensor, rows: list[int]) -> Tensor:
    """Rows of a table (n, D), the mean of all where the index is -1."""
    extended = torch.cat([table, table.mean(dim=0, keepdim=True)])
    return extended[torch.tensor(rows)]
