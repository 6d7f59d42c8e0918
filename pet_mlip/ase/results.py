"""ASE's results of a structure, by name, from what a model said about its atoms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import full_3x3_to_voigt_6_stress

from pet_mlip.ase.checks import explain_not_finite
from pet_mlip.ase.engine import Output
from pet_mlip.data.dispersion import D3Result

Results = dict[str, Any]

STRESSES = ("stress", "stresses")
OF_ATOMS = ("energies", "stresses")
DERIVATIVES = ("forces", *STRESSES)


def needs_gradient(properties: Sequence[str]) -> bool:
    """Whether any of the properties is a derivative of the energy."""
    return any(name in DERIVATIVES for name in properties)


def has_volume(atoms: Atoms) -> bool:
    """Whether a stress is defined: the three cell vectors span a volume."""
    return bool(atoms.cell.rank == 3)


def check_volume(atoms: Atoms, properties: Sequence[str]) -> None:
    """Raise PropertyNotImplementedError if a stress is asked for where it has no meaning."""
    if any(name in STRESSES for name in properties) and not has_volume(atoms):
        raise PropertyNotImplementedError(
            "The stress is the energy's derivative divided by the volume of the cell, but this "
            "structure has no cell with three independent vectors; give it one with "
            "atoms.set_cell(...) if the stress is meaningful."
        )


def collect(
    atoms: Atoms,
    output: Output,
    declared: Mapping[str, Mapping[str, Any]],
    name: str = "the structure",
) -> Results:
    """ASE's results from what the model said about one structure.

    Args:
        atoms: The structure.
        output: Of its atoms.
        declared: What the model predicts besides the energy, as its metadata have it.
        name: Of the structure, for messages.

    Raises:
        UserError: They are not finite.
    """
    energy = float(output.energies.sum())
    results: Results = {"energy": energy, "free_energy": energy, "energies": output.energies}
    finite = np.isfinite(energy)
    if output.forces is not None and output.virials is not None:
        results["forces"] = output.forces
        finite = finite and np.isfinite(output.forces).all()
        if has_volume(atoms):
            stresses = full_3x3_to_voigt_6_stress(output.virials) / abs(atoms.get_volume())
            results["stresses"] = stresses
            results["stress"] = stresses.sum(axis=0)
    for key, result in declared.items():
        of_atoms = output.results[key]
        results[key] = of_atoms if result["per_atom"] else of_atoms.sum(axis=0)
        finite = finite and np.isfinite(of_atoms).all()
    if output.uncertainty is not None:
        vectors = output.uncertainty.vectors
        results["energy_uncertainty"] = float(np.linalg.norm(vectors.sum(axis=0)))
        results["energies_uncertainty"] = np.linalg.norm(vectors, axis=1)
        finite = finite and bool(np.isfinite(vectors).all())
        if output.uncertainty.forces is not None:
            results["forces_uncertainty"] = output.uncertainty.forces
            finite = finite and bool(np.isfinite(output.uncertainty.forces).all())
    if not finite:
        raise explain_not_finite(atoms, name)
    return results


def add_d3(results: Results, d3: D3Result) -> Results:
    """Add D3 to the results of a structure; what they say of its atoms' energies is gone then."""
    added = {name: value for name, value in results.items() if name not in OF_ATOMS}
    added["energy"] = added["free_energy"] = results["energy"] + d3.energy
    if "forces" in results:
        added["forces"] = results["forces"] + d3.forces
    if "stress" in results and d3.stress is not None:
        added["stress"] = results["stress"] + full_3x3_to_voigt_6_stress(d3.stress)
    return added
