"""Fitting of a trained potential's uncertainties."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pet_mlip.config import Config
from pet_mlip.data.checks import symbols
from pet_mlip.data.dataset import AtomsDataset
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.network.uncertainty import Posterior, growth
from pet_mlip.train.predictions import first_device
from pet_mlip.train.uncertainty.errors import OpenErrors
from pet_mlip.train.uncertainty.features import LastFeatures
from pet_mlip.train.uncertainty.likelihood import ROUNDOFF, find_ridge, find_sizes, weight_of

LEAST = 10
"""Structures that are looked at, however large they are: the atoms of one are much alike."""
LEAST_TYPICAL = 1e-2
"""Of the squared length t of all atoms together: that of an element with less is round-off."""


class Amount(NamedTuple):
    """Atoms of the structures that are looked at, about.

    More than the defaults would not change the result.
    """

    training: int = 30_000
    """Six evaluations, as all here without forces, but in float64."""
    validation: int = 10_000
    """One, with forces."""
    probed: int = 10_000
    """Of these, whose forces are compared with their variances: sixteen evaluations."""

    @classmethod
    def after(cls, seen: float) -> Amount:
        """Choose what takes about a tenth of the time of the training.

        Args:
            seen: Atoms of all batches of the training.
        """
        most = cls()
        return cls(
            training=int(min(max(seen / 40, 2000), most.training)),
            validation=int(min(max(seen / 20, 2000), most.validation)),
            probed=int(min(max(seen / 120, 700), most.probed)),
        )


class Fitted(NamedTuple):
    """What was found, and how."""

    posterior: Posterior
    facts: dict[str, Any]
    """Plain JSON types."""


def fit_uncertainty(
    potential: Potential,
    config: Config,
    training: AtomsDataset,
    validation: AtomsDataset,
    amount: Amount | None = None,
) -> Fitted:
    """Find the uncertainties of a trained potential.

    Args:
        potential: With the weights that simulations will use; it is not changed.
        config: Of its training: seed, device, memory, members.
        training: What it was trained on.
        validation: Whose errors decide how large uncertainties are.
        amount: How much of both; by default all that could change something.

    Raises:
        UserError: The validation set has too few labels, or the data have an element that the
            potential does not know.
    """
    _check_species(potential, training, validation)
    device = first_device(config.training)
    # Differences of features need more digits than evaluations do.
    potential = deepcopy(potential).eval().requires_grad_(False).set_dtype(torch.float64).to(device)
    generator = torch.Generator().manual_seed(config.training.seed)
    features = LastFeatures(potential, config, generator, device)
    amount = Amount() if amount is None else amount
    chosen = _choose(_with_labels(training, "energy", "forces"), amount.training, generator)
    features.find_mean(chosen)
    checked = _choose(_with_labels(validation, "energy", "forces"), amount.validation, generator)
    probed = _choose(_with_labels(checked, "forces"), amount.probed, generator)
    found = features.errors(probed, _without(checked, probed))
    floor = ROUNDOFF * float(features.mean.norm(dim=1).max())
    open_errors = OpenErrors(found, floor)
    energies, forces = open_errors.unweighted
    if max(len(energies.values), len(forces.values)) < 2:
        raise UserError(
            "The validation set has fewer than two energies or forces that symmetry leaves open, "
            "whose errors decide how large uncertainties are."
        )
    if len(chosen) == 0:
        raise UserError("The training set has no energies or forces, which fix the weights.")
    curvature = features.curvature(
        chosen, weight_of(energies, energies.n_atoms), weight_of(forces, None)
    )
    ridge, factor = find_ridge(curvature, [e for e in (energies, forces) if len(e.values) >= 2])
    # C = L L^T: L^-1 F has the length that the variance is the square of, and so has L^-T x the
    # covariance C^-1 for a normal x.
    unit = torch.eye(len(factor), dtype=torch.float64)
    whitening = torch.linalg.solve_triangular(factor, unit, upper=False)
    drawn = torch.randn(
        config.training.uncertainty_members, len(factor), generator=generator, dtype=torch.float64
    )
    members = torch.linalg.solve_triangular(factor.t(), drawn.t(), upper=True).t()
    offsets = found.features @ whitening.t()
    if float(found.features.norm(dim=1).max()) <= floor:
        offsets = torch.zeros_like(offsets)  # all are round-off
    typical = _typical(offsets, found.species, len(potential.species))
    energies, forces = open_errors.compare(growth(typical, offsets, found.species))
    of_energy, of_forces, facts = find_sizes(energies, forces, factor)
    # The features in units of the network.
    scale = float(potential.scale)
    posterior = Posterior(
        scale * of_energy * whitening,
        scale * of_forces * members,
        features.mean.cpu() / scale,
        # With all labels the model's own there is nothing that could grow.
        of_energy**2 * typical if of_energy > 0.0 else torch.full_like(typical, torch.inf),
    )
    finite = all(bool(torch.isfinite(part).all()) for part in posterior[:3])
    if not (finite and bool((posterior.typical > 0.0).all())):
        raise UserError("Uncertainties could not be found from these data: they are not finite.")
    return Fitted(posterior, {"ridge": ridge, **facts})


def _check_species(potential: Potential, *datasets: AtomsDataset) -> None:
    known = set(potential.species)
    for dataset in datasets:
        for structure in dataset.structures:
            strange = set(structure.species.tolist()) - known
            if strange:
                raise UserError(
                    f"{structure.source}: the model does not know {symbols(sorted(strange))}."
                )


def _choose(dataset: AtomsDataset, n_atoms: int, generator: torch.Generator) -> AtomsDataset:
    """Draw so many structures as have about so many atoms, and all elements; at least `LEAST`."""
    order = torch.randperm(len(dataset), generator=generator).numpy()
    count = int(np.searchsorted(np.cumsum(dataset.sizes[order]), n_atoms)) + 1
    count = max(count, LEAST)
    if count >= len(dataset):
        return dataset
    chosen = [dataset.structures[k] for k in order[:count]]
    seen = {z for structure in chosen for z in structure.species.tolist()}
    for k in order[count:]:
        new = set(dataset.structures[k].species.tolist()) - seen
        if new:
            chosen.append(dataset.structures[k])
            seen |= new
    return AtomsDataset(chosen, dataset.cutoff)


def _with_labels(dataset: AtomsDataset, *names: str) -> AtomsDataset:
    """Leave out the structures that have none of these labels."""
    structures = [
        structure
        for structure in dataset.structures
        if any(getattr(structure, name) is not None for name in names)
    ]
    return dataset if len(structures) == len(dataset) else AtomsDataset(structures, dataset.cutoff)


def _without(dataset: AtomsDataset, other: AtomsDataset) -> AtomsDataset:
    """Leave out the structures of another."""
    known = {id(structure) for structure in other.structures}
    structures = [structure for structure in dataset.structures if id(structure) not in known]
    return AtomsDataset(structures, dataset.cutoff)


def _typical(offsets: Tensor, species: Tensor, n_species: int) -> Tensor:
    """Find t = <|a|^4> / <|a|^2> of each element, (S,); infinite if all atoms are alike.

    It is that of all atoms together for an element without atoms, and for one whose environments
    are all the same: others are not infinitely far from them.

    Args:
        offsets: a of atoms, (A, D).
        species: Their elements, (A,).
        n_species: Of the potential.
    """
    squares = offsets.square().sum(dim=1)
    total = squares.new_zeros(n_species).index_add(0, species, squares)
    of_squares = squares.new_zeros(n_species).index_add(0, species, squares.square())
    if not bool(total.sum() > 0):
        return torch.full_like(total, torch.inf)
    of_all = of_squares.sum() / total.sum()
    typical = of_squares / total.clamp(min=torch.finfo(total.dtype).tiny)
    return torch.where(typical > LEAST_TYPICAL * of_all, typical, of_all)
