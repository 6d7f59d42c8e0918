"""One reference calculation: an ASE calculator or a command, and what is wrong with its answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import find_mic
from ase.io import read, write

from pet_mlip.errors import UserError
from pet_mlip.learn.config import ReferenceConfig
from pet_mlip.learn.importing import import_object
from pet_mlip.learn.workers import run_program

MOVED = 1e-3
"""Largest difference in Å between the positions asked for and those of the answer."""


def check_reference(reference: ReferenceConfig) -> None:
    """Find out before any work whether the reference can be called at all.

    Raises:
        UserError: Why not.
    """
    if reference.calculator is not None:
        import_object(reference.calculator, "reference.calculator")
    for name in reference.files:
        if not os.path.isfile(name):
            raise UserError(f"reference.files: there is no file {name}.")


def compute_label(reference: ReferenceConfig, atoms: Atoms, folder: str) -> Atoms:
    """Compute energy, forces and, of what has a volume, the stress if the reference has it.

    Args:
        reference: How.
        atoms: Of which structure.
        folder: Where a command works; it is made anew. Calculators work there, too.

    Returns:
        The structure with a calculator that holds the results.

    Raises:
        UserError: The reference failed, or its answer cannot be right; says why.
    """
    place = Path(folder)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        if reference.calculator is not None:
            with _working_in(place):
                answer = _calculate(reference, atoms)
        else:
            answer = _run(reference, atoms, place)
    except UserError:
        raise
    except Exception as error:  # calculators and readers raise anything
        raise UserError(f"{type(error).__name__}: {' '.join(str(error).split())}") from None
    finally:
        with suppress(OSError):  # there is something in it
            place.rmdir()
    return _checked(reference, atoms, answer)


_one_at_a_time = threading.Lock()
"""Workers of dask may be threads of one process, which has one working directory."""


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Let calculators that write files where they are do so in a folder."""
    with _one_at_a_time:
        before = os.getcwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _calculate(reference: ReferenceConfig, atoms: Atoms) -> Atoms:
    """Ask a new calculator, whose answer does not depend on what it was asked before."""
    assert reference.calculator is not None
    make = import_object(reference.calculator, "reference.calculator")
    asked = atoms.copy()
    asked.set_constraint()
    asked.calc = make(**reference.arguments)
    results = {"forces": asked.get_forces(), "energy": asked.get_potential_energy()}
    if asked.cell.rank == 3 and asked.pbc.any():
        with suppress(PropertyNotImplementedError, NotImplementedError):
            results["stress"] = asked.get_stress()
    asked.calc = SinglePointCalculator(asked, **results)
    return asked


def _run(reference: ReferenceConfig, atoms: Atoms, place: Path) -> Atoms:
    """Run a command in a folder and read what it leaves there."""
    assert reference.command is not None
    for name in reference.files:
        shutil.copy(name, place / os.path.basename(name))
    plain = atoms.copy()
    plain.set_constraint()
    write(place / reference.input, plain)
    with open(place / "stdout.txt", "w") as out, open(place / "stderr.txt", "w") as err:
        try:
            code = run_program(
                reference.command, reference.timeout, cwd=place, stdout=out, stderr=err
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"it took longer than {reference.timeout:g} s") from None
    if code != 0:
        words = (place / "stderr.txt").read_text(errors="replace").strip().splitlines()
        raise UserError(f"the command ended with code {code}: {' '.join(words[-1:])}")
    if not (place / reference.output).is_file():
        raise UserError(f"the command left no file {reference.output}")
    answer = read(place / reference.output)
    assert isinstance(answer, Atoms)
    return answer


def _checked(reference: ReferenceConfig, atoms: Atoms, answer: Atoms) -> Atoms:
    """The structure that was asked for with the answer's results, if these can be right."""
    if answer.calc is None:
        raise UserError("the answer has neither energy nor forces")
    results = {name: answer.calc.results.get(name) for name in ("energy", "forces", "stress")}
    for name in ("energy", "forces"):
        if results[name] is None:
            raise UserError(f"the answer has no {name}")
        if not np.isfinite(results[name]).all():
            raise UserError(f"{name} that is not finite")
    if not np.array_equal(answer.numbers, atoms.numbers):
        raise UserError("the answer is of other atoms, or has them in another order")
    moved = find_mic(answer.positions - atoms.positions, atoms.cell, atoms.pbc)[1]
    if moved.max(initial=0.0) > MOVED:
        raise UserError(f"the answer is of another structure: an atom moved {moved.max():.3g} Å")
    largest = float(np.linalg.norm(results["forces"], axis=1).max(initial=0.0))
    if largest > reference.max_force:
        raise UserError(
            f"the largest force is {largest:.3g} eV/Å, above reference.max_force, "
            f"{reference.max_force:g}"
        )
    if results["stress"] is None or not atoms.pbc.any():
        del results["stress"]
    labelled = atoms.copy()
    labelled.calc = SinglePointCalculator(labelled, **results)
    return labelled
