"""The data of the starting weights, without the packages that make molecules and labels."""

import ase.io
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from benchmarks.starting_weights.generate import SMALL, write_parts


def labelled(name, smiles):
    atoms = molecule(name)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=0.0 * atoms.positions)
    atoms.info["smiles"] = smiles
    return atoms


def test_molecules_are_in_one_part_only_and_small_ones_in_training(tmp_path):
    large = [labelled("C6H6", f"large {k}") for k in range(400)]
    small = [labelled("H2O", f"small {k}") for k in range(100)]
    for k, structures in enumerate((large + small, large)):
        ase.io.write(tmp_path / f"{k}.xyz", structures)
    write_parts([tmp_path / "0.xyz", tmp_path / "1.xyz"], tmp_path)
    parts = {
        name: ase.io.read(tmp_path / f"{name}.xyz.gz", ":")
        for name in ("train", "validation", "test")
    }
    assert sum(map(len, parts.values())) == 900
    names = {part: {a.info["smiles"] for a in found} for part, found in parts.items()}
    assert sum(map(len, names.values())) == 500  # nobody is in two of them
    assert all(2 <= len(names[part]) <= 40 for part in ("validation", "test"))
    assert all(len(a) >= SMALL for part in ("validation", "test") for a in parts[part])
