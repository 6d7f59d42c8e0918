"""From a configuration to data sets and an untrained (or a pretrained) potential."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn

from pet_mlip.config import Config, TrainingConfig
from pet_mlip.config.training import LARGEST_ENERGY_WEIGHT
from pet_mlip.data.baseline import (
    Baseline,
    energies_by_number,
    fit_baseline,
    force_scale,
    separate_isolated_atoms,
    shift_to_fit,
)
from pet_mlip.data.checks import DataLimits, check_species, symbols
from pet_mlip.data.coverage import coverage_table, require_labels, require_results
from pet_mlip.data.dataset import AtomsDataset
from pet_mlip.data.dispersion import D3, subtract
from pet_mlip.data.labels import DataUnits, LabelKeys
from pet_mlip.data.load import load_structures
from pet_mlip.data.neighbours import neighbour_list
from pet_mlip.data.reading import expand_files
from pet_mlip.data.result_baseline import fit_result_baseline
from pet_mlip.data.splitting import keep_elements, split_by_fraction
from pet_mlip.data.structure import Structure
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.pace import EveryHalfMinute
from pet_mlip.train.output import LOG, log_table

MOST_NEIGHBOURS = 28
"""That atoms have on average within the cutoff, where none is given."""
SMALLEST_CUTOFF = 3.0
"""That is chosen, in Å."""
SAMPLED = 50
"""Structures whose neighbours are counted for that."""
ATOMS_PER_BATCH = 64
"""With ``batch_size: auto``, about."""
LARGEST_BATCH = 32
"""With ``batch_size: auto``, in structures."""
RATES = {"muon": 4e-3, "adamw": 1e-3}
"""Largest learning rates for random weights."""
FINE_TUNING = 0.25
"""Part of them that a training from other weights takes."""
FEW_ATOMS = 2000
"""In the training set, below which half of that is better (benchmarks/README.md)."""
INITIAL_SHARE = 0.1
"""Most that the energies' part of an untrained model's loss is of the forces' part."""
SMALLEST_ENERGY_WEIGHT = 0.1
"""Below which energies would no longer be learned well in the end."""


@dataclass
class DataSets:
    """What is learned from, and what is validated with."""

    training: AtomsDataset
    validation: AtomsDataset
    isolated: dict[int, float]
    """Energies of isolated atoms in eV, by atomic number."""

    @property
    def species(self) -> list[int]:
        """Atomic numbers of the training set, ascending."""
        return sorted({int(z) for s in self.training.structures for z in np.unique(s.species)})


def load_data(config: Config, console: Console) -> DataSets:
    """Read, check and split the data, and find the neighbours.

    Raises:
        UserError: for whatever is wrong with the files or the structures in them.
    """
    data = config.data
    with counter(console, "Reading structures") as count:
        everything = load_files(config, [*data.train, *data.isolated_atoms], count)
        training, isolated = separate_isolated_atoms(everything)
        if isinstance(data.validation, float):
            parts = split_by_fraction(training, [data.validation], config.training.seed)
            training, validation, rare = keep_elements(*parts)
            if rare:
                LOG.info(
                    "Structures with %s stay in the training part of the random split, which would "
                    "have none otherwise.",
                    symbols(rare),
                )
        else:
            validation = load_files(config, data.validation, count)
    check_species(training, validation, "validation")
    cutoff = choose_cutoff(config, training)
    log_table(coverage_table({"training": training, "validation": validation}))
    require_labels(training, wanted_labels(config))
    require_results(training, wanted_results(config))
    sets = DataSets(
        AtomsDataset(training, cutoff),
        AtomsDataset(validation, cutoff),
        isolated,
    )
    with counter(console, "Finding neighbours") as count:
        sets.training.prepare(data.workers, count)
        sets.validation.prepare(data.workers, count)
    return sets


def choose_cutoff(config: Config, structures: Sequence[Structure]) -> float:
    """Find the cutoff in Å: the default shrinks in dense materials.

    Where atoms have many neighbours, a step takes long: in water and copper, a radius with about
    half of them had lower errors after the same time (benchmarks/README.md).
    """
    cutoff = config.model.cutoff
    given = config.model.model_fields_set & {"cutoff", "cutoff_width", "num_neighbors_adaptive"}
    if given or config.training.init_from is not None:
        return cutoff
    distances, n_atoms = [], 0
    places = np.unique(np.linspace(0, len(structures) - 1, SAMPLED).round().astype(int))
    for k in places if structures else ():
        s = structures[k]
        _, _, vectors = neighbour_list(s.positions, s.cell, s.pbc, cutoff)
        distances.append(np.linalg.norm(vectors, axis=1))
        n_atoms += len(s.species)
    found = np.sort(np.concatenate(distances)) if distances else np.zeros(0)
    if len(found) <= MOST_NEIGHBOURS * n_atoms:
        return cutoff
    # In whole tenths of an Å.
    chosen = max(np.floor(10 * found[MOST_NEIGHBOURS * n_atoms]) / 10, SMALLEST_CUTOFF)
    return float(min(chosen, cutoff))


def load_files(
    config: Config, files: list[str], progress: Callable[[int], None] | None = None
) -> list[Structure]:
    """Structures of files relative to ``data.root``, without what is not to be learned."""
    data = config.data
    paths = [str(Path(data.root) / file) for file in files]
    limits = DataLimits(max_force=data.max_force, min_distance=data.min_distance)
    try:
        paths = expand_files(paths)
    except UserError as error:
        raise UserError(
            f"{error} Names of files are relative to data.root ({data.root}), and that to the "
            "working directory or, if they are not there, to the folder of the configuration."
        ) from None
    structures = load_structures(paths, label_keys(config), data_units(config), limits, progress)
    if data.subtract is not None:
        d3 = D3.parse(data.subtract)
        LOG.info("Subtracting %s from the labels of %d structures.", d3.name, len(structures))
        subtract(d3, structures)
    return structures


def label_keys(config: Config) -> LabelKeys:
    """Where the labels are."""
    keys = config.data.keys.model_dump(exclude={"results"})
    if not config.model.system_conditioning:
        keys.update(charge=None, spin_multiplicity=None)
    return LabelKeys(**keys, results=config.model.results, result_keys=config.data.keys.results)


def data_units(config: Config) -> DataUnits:
    """Units in the files."""
    return DataUnits(**config.data.units.model_dump())


def wanted_labels(config: Config) -> list[str]:
    """Labels that the loss cannot do without.

    The default weight of the stress counts only where there are stresses: molecules have none.
    """
    loss = config.training.loss
    wanted = [label for label in ("energy", "forces") if loss.is_trained_on(label)]
    if loss.stress > 0 and "stress" in loss.model_fields_set:
        wanted.append("stress")
    return wanted


def wanted_results(config: Config) -> list[str]:
    """Results that are no energies, and that the loss cannot do without."""
    loss = config.training.loss
    return [name for name in config.model.results if loss.weight_of_result(name) > 0]


def check_results(config: Config) -> None:
    """Refuse weights and keys of results that the model does not have, and a loss of nothing.

    Raises:
        UserError: Which, and where.
    """
    loss, declared = config.training.loss, config.model.results
    named: dict[str, Iterable[str]] = {
        "training.loss.results": loss.results,
        "data.keys.results": config.data.keys.results,
    }
    for where, names in named.items():
        unknown = [name for name in names if name not in declared]
        if unknown:
            raise UserError(
                f"{where} names {', '.join(unknown)}, but model.results declares "
                f"{', '.join(declared) or 'no results'}."
            )
    if loss.energy_weight == loss.forces == loss.stress == 0 and not wanted_results(config):
        raise UserError(
            "training.loss: energy, forces and stress have weight 0 (or no structure has a "
            "stress), and no result of model.results has another: nothing would be learned."
        )


def resolve(config: Config, data: DataSets, n_processes: int = 1) -> Config:
    """The configuration with what the data decide.

    There is no weight for a stress that nothing has; cutoff, batch size, learning rate and the
    weight of the energy are numbers.

    Args:
        config: As the user wrote it.
        data: What is learned from.
        n_processes: Which share the batches.
    """
    sizes = [len(structure.species) for structure in data.training.structures]
    update: dict[str, Any] = {}
    if config.training.learning_rate == "auto":
        update["learning_rate"] = default_learning_rate(config.training, sum(sizes))
        LOG.info("training.learning_rate is %.3g.", update["learning_rate"])
    if config.training.batch_size == "auto":
        update["batch_size"] = default_batch_size(sizes, n_processes)
        LOG.info("training.batch_size is %d.", update["batch_size"])
    loss: dict[str, float] = {}
    if all(structure.stress is None for structure in data.training.structures):
        loss["stress"] = 0.0
    if config.training.loss.energy == "auto":
        loss["energy"] = default_energy_weight(config, data)
        LOG.info("training.loss.energy is %.3g.", loss["energy"])
    update["loss"] = config.training.loss.model_copy(update=loss)
    training = config.training.model_copy(update=update)
    model = config.model
    cutoff = float(data.training.cutoff)
    if cutoff != model.cutoff:
        LOG.info("model.cutoff is %.1f Å: atoms have many neighbours.", cutoff)
        model = model.model_copy(update={"cutoff": cutoff})
    return config.model_copy(update={"training": training, "model": model})


def default_learning_rate(config: TrainingConfig, atoms: int) -> float:
    """Find the rate that ``learning_rate: auto`` stands for, with so many atoms to learn from."""
    rate = RATES[config.optimizer]
    if config.init_from is None:
        return rate
    return FINE_TUNING * rate * (0.5 if atoms < FEW_ATOMS else 1.0)


def default_batch_size(sizes: Sequence[int], n_processes: int = 1) -> int:
    """How many structures ``batch_size: auto`` stands for, from their numbers of atoms."""
    batch_size = round(ATOMS_PER_BATCH / (sum(sizes) / len(sizes)))
    return max(min(batch_size, LARGEST_BATCH), n_processes)


def default_energy_weight(config: Config, data: DataSets) -> float:
    """Find the weight that ``loss.energy: auto`` stands for.

    A large weight slows the learning of forces down even where energies are alike, as if the first
    epochs were spent on holding all of them while the weights change (benchmarks/README.md). Where
    energies differ as much as forces are large, they rule even so, though there is one for each
    structure only. So the energies' part of the loss of a model that knows the composition only, as
    a new network does, is at most `INITIAL_SHARE` of the forces' part, with a weight of
    `SMALLEST_ENERGY_WEIGHT` at least. What starts from another model knows more.
    """
    if config.training.init_from is not None or config.training.loss.forces == 0:
        return LARGEST_ENERGY_WEIGHT
    spread = composition_baseline(config, data).scatter
    scale = force_scale(data.training.structures)
    if scale is None or not spread > 0:  # nan without energies
        return LARGEST_ENERGY_WEIGHT
    share = config.training.loss.forces * INITIAL_SHARE * (scale / spread) ** 2
    return min(LARGEST_ENERGY_WEIGHT, max(SMALLEST_ENERGY_WEIGHT, share))


def composition_baseline(config: Config, data: DataSets) -> Baseline:
    """Energies per element, as ``data.baseline`` asks for.

    Raises:
        UserError: if isolated atoms are asked for and not there.
    """
    structures = data.training.structures
    if config.data.baseline == "auto":
        baseline = fit_baseline(structures, isolated=data.isolated)
        return shift_to_fit(baseline, structures) if data.isolated else baseline
    given, isolated = demanded_energies(config, data)
    return fit_baseline(structures, given=given, isolated=isolated)


def demanded_energies(config: Config, data: DataSets) -> tuple[dict[int, float], dict[int, float]]:
    """Energies that ``data.baseline`` gives, or takes from isolated atoms, by atomic number in eV.

    Raises:
        UserError: if isolated atoms are asked for and not there.
    """
    wanted = config.data.baseline
    if isinstance(wanted, dict):
        named: dict[str | int, float] = dict(wanted.items())
        return energies_by_number(named, "data.baseline"), {}
    if wanted != "isolated_atoms":
        return {}, {}
    absent = [chemical_symbols[z] for z in data.species if z not in data.isolated]
    if absent:
        raise UserError(
            f"data.baseline is isolated_atoms, but there is no isolated {', '.join(absent)} atom "
            "with an energy among data.isolated_atoms and data.train; use auto or least_squares."
        )
    return {}, data.isolated


def set_result_baselines(potential: Potential, names: Iterable[str], data: DataSets) -> None:
    """Fit baselines and scales of results that are no energies to the training set."""
    for name in names:
        result = potential.pet_hypers.results[name]
        fit = fit_result_baseline(data.training.structures, name, result, potential.species)
        potential.set_result_baseline(name, fit.values, fit.scale)
        LOG.info("%s: scale %.4g %s.", name, fit.scale, result.unit)


def energy_scale(data: DataSets, baseline: Baseline) -> float:
    """Scale of the network's energies in eV.

    The root mean square of the force components; without forces what the baseline leaves of the
    energies per atom; one where both vanish.
    """
    scale = force_scale(data.training.structures) or baseline.residual
    return scale if np.isfinite(scale) and scale > 1e-6 else 1.0


@contextmanager
def counter(console: Console, title: str) -> Iterator[Callable[[int], None]]:
    """A counter in the terminal while something long goes on."""
    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed}"))
    is_due = EveryHalfMinute()
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def show(done: int) -> None:
            bar.update(task, completed=done)
            if not console.is_terminal and is_due():
                LOG.info("%s: %d", title, done)

        yield show
