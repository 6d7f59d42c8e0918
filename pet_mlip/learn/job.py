"""One simulation of a round: what it is, how it ends, and why it should."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from pet_mlip.ase.md import MDSettings
from pet_mlip.files import write_text
from pet_mlip.learn.start import is_too_close

OUTCOME = "outcome.json"


@dataclass(frozen=True)
class Job:
    """One simulation."""

    folder: Path
    model: Path
    start: Atoms
    settings: MDSettings
    steps: int
    interval: int
    """Steps between two looks at the uncertainty."""
    stop_above: float
    """Uncertainty of a force in eV/Å."""
    max_force: float
    """Largest predicted force in eV/Å of a structure that makes sense."""
    device: str = "cpu"


@dataclass(frozen=True)
class Outcome:
    """What became of a simulation."""

    steps: int
    """Done."""
    stopped: str | None
    """Why it did not go on to its end."""


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Say in its folder that a simulation has ended, and how."""
    write_text(folder / OUTCOME, json.dumps(asdict(outcome)) + "\n")


def has_ended(folder: Path) -> bool:
    """Whether there is nothing left to do for a simulation."""
    return (folder / OUTCOME).exists()


def read_outcome(folder: Path) -> Outcome:
    """Read how a simulation ended."""
    return Outcome(**json.loads((folder / OUTCOME).read_text(encoding="utf-8")))


def why_stop(atoms: Atoms, stop_above: float, max_force: float) -> str | None:
    """Why a simulation should not go on from a structure with results, if so.

    Args:
        atoms: With predicted forces and their uncertainties.
        stop_above: Uncertainty of a force in eV/Å.
        max_force: Largest predicted force in eV/Å of a structure that makes sense.
    """
    worst = worst_uncertainty(atoms)
    if worst > stop_above:
        return f"a force is uncertain by {worst:.3g} eV/Å, more than {stop_above:g}"
    return why_absurd(atoms, max_force)


def why_absurd(atoms: Atoms, max_force: float) -> str | None:
    """Why a structure with predicted forces makes no sense, if so."""
    largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max(initial=0.0))
    if not largest <= max_force:
        return f"a predicted force is {largest:.3g} eV/Å, more than {max_force:g}"
    if is_too_close(atoms):
        return "two atoms have come too close"
    return None


def worst_uncertainty(atoms: Atoms) -> float:
    """The largest uncertainty of a force, in eV/Å, of a structure that moves or was recorded."""
    name = "forces_uncertainty"
    found = atoms.arrays[name] if name in atoms.arrays else atoms.calc.get_property(name, atoms)
    return float(np.max(found, initial=0.0))
