"""Fitting of a trained potential's uncertainties: the curvature of its loss, and their size.

Energies are E = w^T F, with the sum F of the last features f of N atoms, and forces -dF/dx w. With
f measured from its mean over the training atoms of the element,

    C = sum_i f_i f_i^T / (N s_E)^2  +  sum_x (dF/dx) (dF/dx)^T / s_F^2

over the atoms and over the force components of all structures, with the root mean square errors
s_E of energies per atom and s_F of forces. The second sum is Gauss and Newton's curvature of the
squared errors of forces over w. That of energies would have F F^T: but then how an energy is shared
among the atoms of a structure is taken for unknown, and an atom's uncertainty says nothing of its
environment (benchmarks/README.md has both). The second sum is taken over random directions v of all
atoms, since v^T (dF/dr) needs no derivative of each feature: it is a difference of features. To C
comes the ridge under which the errors of the validation set are likeliest, if the variances are
F^T C^-1 F of energies and (dF/dx)^T C^-1 (dF/dx) of forces but for their sizes. The sizes alpha are
found last, in the same way, for the variances as the model states them: with atoms that count the
more, the farther they are from the training data (`pet_mlip.network.uncertainty` has the formula
and the source). Outliers among the errors count less for the sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pet_mlip.config import Config
from pet_mlip.data.batch import Batch
from pet_mlip.data.checks import symbols
from pet_mlip.data.dataset import AtomsDataset
from pet_mlip.engine.derivatives import predict
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.graph.graph import Graph
from pet_mlip.network.uncertainty import Posterior, growth
from pet_mlip.train.checkpoint import read_checkpoint, restore_potential, write_checkpoint
from pet_mlip.train.memory import MemoryBudget
from pet_mlip.train.output import LOG
from pet_mlip.train.predictions import batches, first_device

STEP = 1e-3
"""Of the differences, in Å."""
PROBES = 2
"""Random directions of a training structure's atoms."""
CHECKS = 8
"""Force components of a validation structure that are compared with their variances."""
LEAST = 10
"""Structures that are looked at, however large they are: the atoms of one are much alike."""
ZERO = 1e-4
"""Of the root mean square length of the vectors behind the variances: shorter ones, and the
energies that they belong to, are zero by symmetry and say nothing of a size."""
ZERO_FORCES = 1e-2
"""The same for forces: in nearly perfect crystals their errors are the noise of their labels."""
OUTLIER = 3.0
"""Errors count as no more than so many times the standard deviation that 68 % lie within, so that
an isolated atom or a wrong label among the structures does not decide on everybody's size."""
LEAST_TYPICAL = 1e-2
"""Of the squared length t of all atoms together: that of an element with less is round-off."""
ROUNDOFF = 1e-6
"""Of features and their derivatives in float32, relative."""
NOISE = 1e-2
"""The largest part of an uncertainty that may be round-off."""
RIDGES = tuple(10.0**k for k in range(-12, 2))
"""Over the mean eigenvalue of the curvature, from the smallest on."""
ALIKE = 4.0
"""Twice the logarithm of a likelihood ratio that does not tell two ridges apart."""


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


class Comparison(NamedTuple):
    """Errors on validation data, in eV or eV/Å, and what their variances are made of."""

    values: Tensor
    """(R,) float64."""
    vectors: Tensor
    """F or dF/dx of each, (R, D) float64."""
    n_atoms: Tensor
    """Of the structure of each, (R,) int64."""

    def where(self, chosen: Tensor) -> Comparison:
        """Return those of a mask (R,)."""
        return Comparison(*(part[chosen] for part in self))


class Errors(NamedTuple):
    """Errors on validation data, and what each atom contributes to the vectors of a comparison."""

    values: Tensor
    """(R,) float64."""
    n_atoms: Tensor
    """Of the structure of each, (R,) int64."""
    parts: Tensor
    """f or df/dx of atoms, (P, D)."""
    atom: Tensor
    """Place of each part's atom in `Validation.features`, (P,) int64."""
    row: Tensor
    """Which of the errors each part belongs to, (P,) int64."""

    def compare(self, weights: Tensor) -> Comparison:
        """Add up what atoms contribute, times their weights (A, 1)."""
        total = weights.new_zeros(len(self.values), self.parts.shape[1])
        parts = weights[self.atom] * self.parts
        return Comparison(self.values, total.index_add(0, self.row, parts), self.n_atoms)


class Validation(NamedTuple):
    """What was found of the validation set, on the CPU."""

    features: Tensor
    """Last features f of A atoms, (A, D) float64."""
    species: Tensor
    """Their elements, as the potential numbers them, (A,) int64."""
    energies: Errors
    forces: Errors


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
    fit = _Fit(potential, config, generator, device)
    amount = Amount() if amount is None else amount
    chosen = _choose(_with_labels(training, "energy", "forces"), amount.training, generator)
    fit.find_mean(chosen)
    checked = _choose(_with_labels(validation, "energy", "forces"), amount.validation, generator)
    probed = _choose(_with_labels(checked, "forces"), amount.probed, generator)
    found = fit.errors(probed, _without(checked, probed))
    floor = ROUNDOFF * float(fit.mean.norm(dim=1).max())
    judges = _Judges(found, floor)
    energies, forces = judges.compare(torch.ones_like(found.features[:, :1]))
    if max(len(energies.values), len(forces.values)) < 2:
        raise UserError(
            "The validation set has fewer than two energies or forces that symmetry leaves open, "
            "whose errors decide how large uncertainties are."
        )
    if len(chosen) == 0:
        raise UserError("The training set has no energies or forces, which fix the weights.")
    curvature = fit.curvature(chosen, _weight(energies, energies.n_atoms), _weight(forces, None))
    ridge, factor = _likeliest(curvature, [e for e in (energies, forces) if len(e.values) >= 2])
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
    energies, forces = judges.compare(growth(typical, offsets, found.species))
    of_energy, of_forces, facts = _sizes(energies, forces, factor)
    # The features in units of the network.
    scale = float(potential.scale)
    posterior = Posterior(
        scale * of_energy * whitening,
        scale * of_forces * members,
        fit.mean.cpu() / scale,
        # With all labels the model's own there is nothing that could grow.
        of_energy**2 * typical if of_energy > 0.0 else torch.full_like(typical, torch.inf),
    )
    finite = all(bool(torch.isfinite(part).all()) for part in posterior[:3])
    if not (finite and bool((posterior.typical > 0.0).all())):
        raise UserError("Uncertainties could not be found from these data: they are not finite.")
    return Fitted(posterior, {"ridge": ridge, **facts})


class _Fit:
    """The sums over data."""

    def __init__(
        self,
        potential: Potential,
        config: Config,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.potential = potential
        self.config = config
        self.generator = generator
        self.device = device
        self.memory = MemoryBudget(potential, config.training.memory_gb, device)
        self.mean = torch.zeros(
            len(potential.species), potential.pet.last_size, dtype=torch.float64, device=device
        )
        """Of the last features of each element's atoms in eV."""

    def batches(self, dataset: AtomsDataset) -> Iterator[Batch]:
        return batches(self.memory, dataset, self.config, self.device)

    def curvature(self, dataset: AtomsDataset, of_energy: float, of_force: float) -> Tensor:
        """Compute C, (D, D), on the CPU.

        Args:
            dataset: Training structures; those without a label do not count for it.
            of_energy: 1 / s_E^2; zero without such errors.
            of_force: 1 / s_F^2; zero without such errors.
        """
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for batch in self.batches(dataset):
            atoms = self.of_atoms(batch.graph) / batch.n_atoms[batch.structure].unsqueeze(1)
            atoms = atoms[~torch.isnan(batch.energy)[batch.structure]]
            total = total + of_energy * (atoms.t() @ atoms)
            labelled = ~torch.isnan(batch.forces)
            for _ in range(PROBES if of_force > 0 and bool(labelled.any()) else 0):
                # The mean of v v^T is one: a direction stands for the sum over all components.
                direction = self.normal(len(batch.graph.species)) * labelled
                forces = self.sum(batch, self.slopes(batch, direction))
                total = total + of_force / PROBES * (forces.t() @ forces)
        return total.cpu()

    def errors(self, probed: AtomsDataset, others: AtomsDataset) -> Validation:
        """Find those of all energies, and of `CHECKS` force components of each probed structure.

        The parts of forces take `CHECKS` times as many numbers as the probed atoms have features.
        """
        features, species = [self.mean[:0].cpu()], [torch.zeros(0, dtype=torch.int64)]
        energies, forces = _Collected(self.mean.shape[1]), _Collected(self.mean.shape[1])
        for dataset, checks in ((probed, CHECKS), (others, 0)):
            for batch in self.batches(dataset):
                found = predict(
                    self.potential,
                    batch.graph,
                    batch.structure,
                    batch.n_structures,
                    chunk_size=self.memory.chunk_size,
                )
                assert found.forces is not None
                first = sum(len(part) for part in features)
                features.append(self.of_atoms(batch.graph).cpu())
                species.append(self.species(batch).cpu())
                labelled = ~torch.isnan(batch.energy)
                energies.add(batch, found.energy - batch.energy, labelled, features[-1], first)
                error = found.forces - batch.forces
                for _ in range(checks):
                    direction = self.one_component(batch)
                    # F = -dE/dr, and the slopes are those of E.
                    values = torch.zeros_like(found.energy)
                    values = values.index_add(0, batch.structure, -(error * direction).nansum(1))
                    moved = (direction != 0) & ~torch.isnan(error)
                    known = torch.zeros_like(labelled)
                    known = known.index_fill(0, batch.structure[moved.any(1)], True)
                    # They are many; their round-off is below that of a float32 network's features.
                    slopes = self.slopes(batch, direction).to(torch.float32)
                    forces.add(batch, values, known, slopes.cpu(), first)
        return Validation(
            torch.cat(features), torch.cat(species), energies.errors(), forces.errors()
        )

    def find_mean(self, dataset: AtomsDataset) -> None:
        """Take the means of the last features over the atoms of each element."""
        total, count = torch.zeros_like(self.mean), torch.zeros_like(self.mean[:, :1])
        for batch in self.batches(dataset):
            species = self.species(batch)
            total = total.index_add(0, species, self.of_atoms(batch.graph))
            count = count.index_add(0, species, torch.ones_like(total[species, :1]))
        self.mean = total / count.clamp(min=1.0)

    def species(self, batch: Batch) -> Tensor:
        """Return which of the potential's elements each atom is, (N,)."""
        return self.potential.preparation.species_index[batch.graph.species]

    def of_atoms(self, graph: Graph) -> Tensor:
        """Compute the atoms' f in eV, measured from the mean, (N, D)."""
        with torch.no_grad():
            inputs = self.potential.preparation(graph)
            nothing = torch.zeros_like(inputs.repulsion)
            found = self.potential.evaluate(
                [], inputs, nothing, False, self.memory.chunk_size, uncertainty=1
            )
        return self.potential.scale * found.last - self.mean[inputs.species]

    def sum(self, batch: Batch, of_atoms: Tensor) -> Tensor:
        """Add up over the atoms of each structure, (S, D)."""
        total = of_atoms.new_zeros(batch.n_structures, of_atoms.shape[1])
        return total.index_add(0, batch.structure, of_atoms)

    def slopes(self, batch: Batch, direction: Tensor) -> Tensor:
        """Compute v^T df/dr of the atoms along directions v of all of them (N, 3), (N, D)."""
        centre, neighbor = batch.graph.edge_index
        change = STEP * (direction[neighbor] - direction[centre])
        ahead, behind = (
            self.of_atoms(batch.graph._replace(edge_vectors=vectors))
            for vectors in (batch.graph.edge_vectors + change, batch.graph.edge_vectors - change)
        )
        return (ahead - behind) / (2 * STEP)

    def normal(self, n_atoms: int) -> Tensor:
        """Draw independent normal components, (N, 3)."""
        drawn = torch.randn(n_atoms, 3, generator=self.generator, dtype=torch.float64)
        return drawn.to(self.device)

    def one_component(self, batch: Batch) -> Tensor:
        """Draw a unit vector along an axis of one atom of each structure, (N, 3)."""
        shape = (batch.n_structures,)
        share = torch.rand(shape, generator=self.generator, dtype=torch.float64).to(self.device)
        axis = torch.randint(3, shape, generator=self.generator).to(self.device)
        first = batch.n_atoms.cumsum(0) - batch.n_atoms
        atom = first + (share * batch.n_atoms).long()
        direction = torch.zeros(
            len(batch.graph.species), 3, dtype=torch.float64, device=self.device
        )
        direction[atom, axis] = 1.0
        return direction


class _Collected:
    """The errors of batch after batch."""

    def __init__(self, size: int) -> None:
        self.n_errors = 0
        whole = torch.zeros(0, dtype=torch.int64)
        self.columns: list[tuple[Tensor, ...]] = [
            (torch.zeros(0, dtype=torch.float64), whole, torch.zeros(0, size), whole, whole)
        ]

    def add(self, batch: Batch, values: Tensor, known: Tensor, parts: Tensor, first: int) -> None:
        """Add those of the structures of a mask.

        Args:
            batch: The structures.
            values: Error of each, (S,).
            known: The mask, (S,) bool.
            parts: What each atom contributes, (N, D) on the CPU.
            first: Place of the batch's first atom among all.
        """
        known, structure = known.cpu(), batch.structure.cpu()
        row = self.n_errors + known.cumsum(0) - 1
        # Most atoms of a large cell are too far from the one that moves.
        atom = (known[structure] & (parts != 0).any(dim=1)).nonzero().squeeze(1)
        self.n_errors += int(known.sum())
        self.columns.append(
            (
                values.cpu()[known],
                batch.n_atoms.cpu()[known],
                parts[atom],
                first + atom,
                row[structure[atom]],
            )
        )

    def errors(self) -> Errors:
        """Return them all."""
        return Errors(*(torch.cat(column) for column in zip(*self.columns, strict=True)))


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


def _is_open(errors: Comparison, shortest: float, floor: float) -> Tensor:
    """Tell whose variance is not zero by symmetry, or nearly, (R,) bool.

    Args:
        errors: With R vectors.
        shortest: Length, over the root mean square of all, below which they are.
        floor: Length in eV or eV/Å that is round-off, where all of them are zero.
    """
    length = errors.vectors.norm(dim=1)
    least = shortest * float(length.square().mean().sqrt()) if len(length) > 0 else 0.0
    return length > max(least, floor)


def _weight(errors: Comparison, divisor: Tensor | None) -> float:
    """1 / s^2 of the errors, or of these divided by something; zero without any."""
    if len(errors.values) == 0:
        return 0.0
    values = errors.values if divisor is None else errors.values / divisor
    return 1.0 / max(float(values.square().mean()), 1e-30)


def _factor(curvature: Tensor, ridge: float) -> Tensor:
    """Return L of C + ridge = L L^T; nothing where round-off leaves that not positive."""
    mean = curvature.diagonal().mean()
    unit = torch.eye(len(curvature), dtype=curvature.dtype)
    factor, failed = torch.linalg.cholesky_ex(curvature + ridge * mean * unit)
    return factor[:0] if bool(failed) else factor


class _Judges:
    """The errors that symmetry leaves open, and that say something of sizes.

    Args:
        found: All of them.
        floor: Length of features that is round-off.
    """

    def __init__(self, found: Validation, floor: float) -> None:
        self.energies, self.forces = found.energies, found.forces
        alike = torch.ones_like(found.features[:, :1])
        self.open_energies = _is_open(found.energies.compare(alike), ZERO, floor)
        self.open_forces = _is_open(found.forces.compare(alike), ZERO_FORCES, floor)

    def compare(self, weights: Tensor) -> tuple[Comparison, Comparison]:
        """Compare energies and forces, with weights (A, 1) of the atoms."""
        return (
            self.energies.compare(weights).where(self.open_energies),
            self.forces.compare(weights).where(self.open_forces),
        )


def _sizes(
    energies: Comparison, forces: Comparison, factor: Tensor
) -> tuple[float, float, dict[str, Any]]:
    """Find the alphas of energies and of forces, and tell how well they fit.

    What has no errors takes the other's.
    """
    sizes = [_size(e, factor) if len(e.values) >= 2 else None for e in (energies, forces)]
    known = [size for size in sizes if size is not None]
    of_energy, of_forces = (known[0] if size is None else size for size in sizes)
    facts = {
        "energy_labels": len(energies.values),
        "force_labels": len(forces.values),
        "energy_within": _within(energies, factor, of_energy),
        "force_within": _within(forces, factor, of_forces),
    }
    return of_energy, of_forces, facts


def _likeliest(curvature: Tensor, judges: list[Comparison]) -> tuple[float, Tensor]:
    """Find the ridge under which some errors are likeliest, and L of C + ridge = L L^T.

    Of ridges that they do not tell apart it is the smallest, which supposes the least about what
    the training data leave open: far from them a larger one would be too sure.

    Raises:
        UserError: There is none.
    """
    candidates = [(ridge, _factor(curvature, ridge)) for ridge in RIDGES]
    known = [
        (sum(_surprise(errors, factor) for errors in judges), ridge, factor)
        for ridge, factor in candidates
        if len(factor) and _is_resolved(judges[-1], factor)
    ]
    if not known:
        raise UserError(
            "Uncertainties could not be found from these data: round-off would rule them."
        )
    best = min(surprise for surprise, _, _ in known)
    return next((ridge, factor) for found, ridge, factor in known if found <= best + ALIKE)


def _squares(errors: Comparison, factor: Tensor) -> Tensor:
    """F^T C^-1 F of each, (R,)."""
    return torch.linalg.solve_triangular(factor, errors.vectors.t(), upper=False).square().sum(0)


def _is_resolved(errors: Comparison, factor: Tensor) -> bool:
    """Whether the features' round-off is small in F^T C^-1 F, for most of them.

    A small ridge makes C^-1 large along directions that the data say nothing of; features that
    have nothing there in exact arithmetic have round-off.
    """
    inverse = torch.cholesky_inverse(factor).diagonal()
    noise = ROUNDOFF**2 * (errors.vectors.square() @ inverse)
    return bool((noise / _squares(errors, factor)).median() <= NOISE**2)


def _size(errors: Comparison, factor: Tensor) -> float:
    """The alpha under which the errors are likeliest, but for outliers; see `OUTLIER`."""
    ratio = errors.values.abs() / _squares(errors, factor).sqrt()
    largest = OUTLIER * float(ratio.quantile(0.683))
    if largest > 0.0:  # not if most of the labels are the model's own
        ratio = ratio.clamp(max=largest)
    return float(ratio.square().mean().sqrt())


def _surprise(errors: Comparison, factor: Tensor) -> float:
    """Minus twice the log likelihood with that alpha, but for a constant."""
    squares = _squares(errors, factor)
    mean = (errors.values.square() / squares).mean().log() + squares.log().mean()
    return len(squares) * float(mean)


def _within(errors: Comparison, factor: Tensor, size: float) -> list[float | None]:
    """Fractions of the errors within one and two standard deviations; None without errors."""
    if len(errors.values) == 0:
        return [None, None]
    ratio = errors.values.abs() / (size * _squares(errors, factor).sqrt())
    return [float((ratio < k).double().mean()) for k in (1, 2)]
