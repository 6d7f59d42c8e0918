"""All crystals by all contestants; what is finished in a folder is not repeated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from benchmarks.relaxations.crystals import Crystal
from benchmarks.relaxations.phonons import largest_splitting
from benchmarks.relaxations.relax import relax
from pet_mlip import PETCalculator
from pet_mlip.convert.metatrain import sha256
from pet_mlip.errors import UserError
from pet_mlip.files import write_text

Results = dict[str, Any]


@dataclass(frozen=True)
class Contestant:
    """A model and how it is averaged over orientations."""

    name: str
    title: str
    invariant_model: bool
    symmetrization: str
    dtype: str = "float64"


CONTESTANTS = (
    Contestant("plain", "plain PET", False, "none"),
    Contestant("quadrature1", "the same, quadrature:1 (8 orientations)", False, "quadrature:1"),
    Contestant("quadrature", "the same, quadrature:3 (48 orientations)", False, "quadrature:3"),
    Contestant("structure", "the same, structure", False, "structure"),
    Contestant("ecse", "PET with ECSE", True, "none"),
    Contestant("ecse32", "PET with ECSE, float32", True, "none", "float32"),
)


@dataclass(frozen=True)
class Settings:
    """What one run does."""

    contestants: tuple[str, ...]
    largest_force: float
    steps: int
    phonon_atoms: int
    """Largest crystal whose frequencies are computed."""


def run(
    crystals: list[Crystal], plain: Path, ecse: Path, settings: Settings, output: Path
) -> Results:
    """Relax everything, and return and write what was found to ``output/relaxations.json``.

    Args:
        crystals: With all their symmetry.
        plain: Model that is not invariant.
        ecse: Model that is.
        settings: Who, and how far.
        output: Folder; what is finished there with the same settings is kept.

    Raises:
        UserError: A model cannot be read; or the folder holds the results of other settings, models
            or crystals.
    """
    path = output / "relaxations.json"
    setting = {
        "crystals": digest_of(crystals),
        "largest_force": settings.largest_force,
        "steps": settings.steps,
        "phonon_atoms": settings.phonon_atoms,
    }
    results: Results = {
        "settings": setting,
        "models": {},
        "relaxations": {},
        "splittings": {},
        "left_out": [],
    }
    if path.exists():
        results = json.loads(path.read_text(encoding="utf-8"))
        if results["settings"] != setting:
            raise UserError(
                f"{path} has the results of other settings or crystals; give another --output."
            )
    output.mkdir(parents=True, exist_ok=True)
    for contestant in CONTESTANTS:
        if contestant.name not in settings.contestants:
            continue
        model = ecse if contestant.invariant_model else plain
        its_hash = sha256(model)
        if results["models"].setdefault(contestant.name, its_hash) != its_hash:
            raise UserError(f"{path} has the results of another {model}; give another --output.")
        calculator = PETCalculator(
            model,
            device="cpu",
            dtype=contestant.dtype,
            symmetrization=contestant.symmetrization,
        )
        known = {chemical_symbols[z] for z in calculator.metadata.species}
        done = results["relaxations"].setdefault(contestant.name, {})
        splittings = results["splittings"].setdefault(contestant.name, {})
        for crystal in crystals:
            unknown = sorted(set(crystal.atoms.symbols) - known)
            if unknown:
                sentence = f"{crystal.name} is left out: the model does not know {unknown[0]}."
                if sentence not in results["left_out"]:
                    results["left_out"].append(sentence)
                    print(sentence, flush=True)
                continue
            if crystal.name not in done:
                found = relax(crystal, calculator, settings.largest_force, settings.steps)
                done[crystal.name] = found.as_json()
                print(
                    f"{contestant.name:12}{crystal.name:16}{found.before:5} -> {found.after}",
                    flush=True,
                )
            small = len(crystal.atoms) <= settings.phonon_atoms
            # Hessians are those of the network in float64, whatever the calculator's precision is.
            if small and contestant.dtype == "float64" and crystal.name not in splittings:
                try:
                    hessian = calculator.get_hessian(crystal.atoms)
                except UserError as error:
                    results["left_out"].append(f"{contestant.title}, {crystal.name}: {error}")
                    splittings[crystal.name] = None
                else:
                    splittings[crystal.name] = largest_splitting(hessian, crystal.atoms)
            write_text(path, json.dumps(results, indent=1))
    return results


def digest_of(crystals: list[Crystal]) -> str:
    """Return what tells these crystals from others."""
    found = hashlib.sha256()
    for crystal in crystals:
        atoms = crystal.atoms
        found.update(crystal.name.encode())
        for array in (atoms.numbers, atoms.positions, atoms.cell.array):
            found.update(array.tobytes())
    return found.hexdigest()
