"""Subtract D3 from the labels of a data set, so that a model learns the rest of the energy.

    pip install '.[d3]'
    python examples/tools/subtract_d3.py train.xyz val.xyz test.xyz --method PBE --damping d3bj

writes train.rest.xyz and so on beside the files. Whoever runs the model then has to add the same D3
(docs/engines.md). For ASE and LAMMPS, `data.subtract: d3(PBE)` in the configuration does all of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import ase.io
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from pet_mlip.data.dispersion import D3
from pet_mlip.errors import UserError

UNKNOWN = ("virial", "virials")
"""Labels that D3 changes too, and of which ASE knows neither unit nor sign."""


def without_d3(atoms: Atoms, d3: D3) -> Atoms:
    """Return a copy whose energy, forces and stress, where it has them, are those without D3.

    Other labels of the calculator are kept; constraints change nothing.
    """
    copy, found = atoms.copy(), d3(atoms)
    rest = dict(atoms.calc.results)
    rest.pop("free_energy", None)
    rest["energy"] = rest["energy"] - found.energy
    if "forces" in rest:
        rest["forces"] = rest["forces"] - found.forces
    if "stress" in rest and found.stress is not None:
        rest["stress"] = rest["stress"] - full_3x3_to_voigt_6_stress(found.stress)
    copy.calc = SinglePointCalculator(copy, **rest)
    copy.info["subtracted"] = f"D3 {d3.method} {d3.damping}"
    return copy


def main() -> None:
    """Write a file beside each file that is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--method", required=True, help="functional, as simple-dftd3 names it")
    parser.add_argument("--damping", default="d3bj", help="d3bj, d3zero, ...")
    options = parser.parse_args()
    try:
        d3 = D3(options.method, options.damping)
    except UserError as error:
        sys.exit(str(error))
    for path in options.files:
        output = path.with_name(f"{path.stem}.rest.xyz")
        if output.exists():
            sys.exit(f"{output} is there already; move it away.")
        structures = ase.io.read(path, ":")
        for k, atoms in enumerate(structures):
            if atoms.calc is None or "energy" not in atoms.calc.results:
                sys.exit(f"{path}, structure {k}: it has no energy that ASE knows.")
            for name in UNKNOWN:
                if name in atoms.info:
                    sys.exit(
                        f"{path}, structure {k}: it has {name!r}, from which this script cannot "
                        "take D3; write it as the stress, -virial / volume, in ASE's order."
                    )
            if "subtracted" in atoms.info:
                sys.exit(
                    f"{path}, structure {k}: {atoms.info['subtracted']} is subtracted already."
                )
        rest = [without_d3(atoms, d3) for atoms in structures]
        ase.io.write(output, rest, format="extxyz")
        print(f"{output}: {len(rest)} structures")


if __name__ == "__main__":
    main()
