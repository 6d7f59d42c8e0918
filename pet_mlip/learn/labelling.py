"""Labels of many structures: computed side by side, written one by one, failures set aside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

from pet_mlip.errors import UserError
from pet_mlip.files import write_text
from pet_mlip.learn.config import LearnConfig, ReferenceConfig
from pet_mlip.learn.files import read_structures, write_structures
from pet_mlip.learn.log import LOG
from pet_mlip.learn.reference import compute_label
from pet_mlip.learn.workers import Workers, count_cores, dask_workers, local_workers


class Labels(NamedTuple):
    """What became of structures that labels were asked for."""

    structures: list[Atoms]
    """With results, in the order in which they were asked for."""
    failed: list[Atoms]
    """Without; `info["reason"]` says why."""


def label_all(
    config: LearnConfig, structures: Sequence[Atoms], folder: Path, whole: Path
) -> Labels:
    """Label structures; those that a killed program has labelled already are only read.

    Args:
        config: Of the learning.
        structures: To be labelled.
        folder: For a file of each label, and for what the reference writes.
        whole: Folder of the learning.
    """
    folder.mkdir(exist_ok=True)
    missing = [
        k
        for k in range(len(structures))
        if not _labelled(folder, k).exists() and not _reason(folder, k).exists()
    ]
    if missing:
        LOG.info("%d structures are labelled.", len(missing))
        with _workers(config.reference, len(missing), whole) as workers:
            tasks: dict[Future[Atoms], int] = {
                workers.submit(
                    compute_label, config.reference, structures[k], str(folder / f"{k:04d}")
                ): k
                for k in missing
            }
            for future in as_completed(tasks):
                _keep(future, folder, tasks[future], config.reference)
    return _set_absurd_aside(list(_outcomes(structures, folder)), config.reference)


def _workers(
    reference: ReferenceConfig, n_labels: int, whole: Path
) -> AbstractContextManager[Workers]:
    if reference.dask is not None:
        return dask_workers(reference.dask)
    processes = min(count_cores(reference.processes), n_labels)
    # A command ends itself in time, together with what it has started.
    timeout = None if reference.command is not None else reference.timeout
    return local_workers(processes, whole, timeout)


def _keep(future: Future[Atoms], folder: Path, k: int, reference: ReferenceConfig) -> None:
    """Write one label, or why there is none."""
    reason = ""
    try:
        labelled = future.result()
    except UserError as error:
        reason = str(error)
    except TimeoutError:
        reason = f"it took longer than {reference.timeout:g} s"
    except Exception as error:  # a process that died, a cluster that lost one
        reason = f"its process ended: {type(error).__name__}: {' '.join(str(error).split())}"
    if not reason:
        write_structures(_labelled(folder, k), [labelled])
        return
    write_text(_reason(folder, k), reason + "\n")
    LOG.warning("%s: no label: %s", folder / f"{k:04d}", reason)


def _labelled(folder: Path, k: int) -> Path:
    return folder / f"{k:04d}.xyz"


def _reason(folder: Path, k: int) -> Path:
    return folder / f"{k:04d}.failed"


def _outcomes(structures: Sequence[Atoms], folder: Path) -> Iterator[Atoms]:
    for k, atoms in enumerate(structures):
        if _labelled(folder, k).exists():
            yield read_structures(_labelled(folder, k))[0]
        else:
            failed = atoms.copy()
            failed.info["reason"] = _reason(folder, k).read_text().strip()
            yield failed


def _set_absurd_aside(outcomes: list[Atoms], reference: ReferenceConfig) -> Labels:
    """Tell labels from failures; among the latter energies far from those of equal composition."""
    compositions: dict[str, list[float]] = {}
    for atoms in outcomes:
        if atoms.calc is not None:
            energy = atoms.get_potential_energy() / len(atoms)
            compositions.setdefault(atoms.get_chemical_formula("hill"), []).append(energy)
    labels = Labels([], [])
    for atoms in outcomes:
        if atoms.calc is None:
            labels.failed.append(atoms)
            continue
        known = compositions[atoms.get_chemical_formula("hill")]
        off = atoms.get_potential_energy() / len(atoms) - float(np.median(known))
        if abs(off) > reference.max_energy:
            atoms.info["reason"] = (
                f"the energy is {off:+.3g} eV/atom from the median of its composition, more than "
                f"reference.max_energy, {reference.max_energy:g}"
            )
            LOG.warning("A label is set aside: %s", atoms.info["reason"])
            labels.failed.append(atoms)
        else:
            labels.structures.append(atoms)
    return labels
