"""Makes the data sets in this folder: ethanol with GFN2-xTB, diamond with GFN1-xTB.

    OMP_NUM_THREADS=1 python examples/data/make_data.py [ethanol] [diamond] [--output DIR]

Everything is drawn from fixed seeds. Energies in eV, forces in eV/Å, stresses in eV/Å^3 with ASE's
sign. See README.md beside this file for what was chosen and why.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from numpy.typing import NDArray
from tblite.ase import TBLite

TEMPERATURES = (300, 600, 1000)  # K
TIMESTEP = 1.0  # fs
FRICTION = 0.02  # 1/fs
BURN_IN = 500  # steps before the first sample
INTERVAL = 100  # steps between samples
SAMPLES = 30  # per trajectory
TORSIONS = (180.0, 60.0, -60.0)  # degrees, C-C-O-H: trans and both gauche conformers
VALIDATION_EVERY = 9  # of the samples of the training trajectories

DIAMOND_REPEAT = 2  # cubic cells along each axis: 64 atoms
LARGEST_STRAIN = 0.04
SMALLEST_RATTLE, LARGEST_RATTLE = 0.02, 0.08  # Å per component

MULTIPLICITY = {"H": 2, "C": 3, "O": 3}  # ground states of the atoms


def calculator(method: str, multiplicity: int | None = None) -> TBLite:
    """An xTB calculator converged far beyond its default: energies also serve as references."""
    return TBLite(method=method, accuracy=0.01, verbosity=0, multiplicity=multiplicity)


def labelled(atoms: Atoms, config_type: str) -> Atoms:
    """A copy that carries the calculator's results; with stress if periodic, else centred."""
    copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    if atoms.pbc.all():
        results["stress"] = atoms.get_stress()
    else:
        copy.positions -= copy.get_center_of_mass()
    copy.calc = SinglePointCalculator(copy, **results)
    copy.info["config_type"] = config_type
    return copy


def isolated_atoms(symbols: list[str], method: str) -> list[Atoms]:
    """One atom of each element in its ground-state multiplicity."""
    atoms = [Atoms(symbol, [(0.0, 0.0, 0.0)]) for symbol in symbols]
    for atom, symbol in zip(atoms, symbols, strict=True):
        atom.calc = calculator(method, MULTIPLICITY[symbol])
    return [labelled(atom, "isolated_atom") for atom in atoms]


def ethanol_trajectory(temperature: int, torsion: float, seed: int) -> list[Atoms]:
    """SAMPLES structures of one Langevin trajectory that starts from the conformer `torsion`."""
    rng = np.random.default_rng(seed)
    atoms = molecule("CH3CH2OH")
    carbon_far, carbon_near, oxygen, hydrogen = backbone(atoms)
    atoms.set_dihedral(carbon_far, carbon_near, oxygen, hydrogen, torsion, indices=[hydrogen])
    atoms.calc = calculator("GFN2-xTB")
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    dynamics = Langevin(
        atoms,
        timestep=TIMESTEP * units.fs,
        temperature_K=temperature,
        friction=FRICTION / units.fs,
        rng=rng,
        fixcm=False,  # what holds the centre of mass distorts the distribution
    )
    dynamics.run(BURN_IN)
    samples = []
    for _ in range(SAMPLES):
        dynamics.run(INTERVAL)
        samples.append(labelled(atoms, f"{temperature}K"))
    return samples


def backbone(atoms: Atoms) -> tuple[int, int, int, int]:
    """Indices of C, C, O and H along the C-C-O-H chain."""
    oxygen = int(np.flatnonzero(atoms.numbers == 8)[0])
    distances = atoms.get_distances(oxygen, range(len(atoms)))
    carbons = sorted(np.flatnonzero(atoms.numbers == 6), key=distances.__getitem__)
    hydrogens = sorted(np.flatnonzero(atoms.numbers == 1), key=distances.__getitem__)
    return int(carbons[1]), int(carbons[0]), oxygen, int(hydrogens[0])


def make_ethanol() -> dict[str, list[Atoms]]:
    """Three trajectories per temperature for training and validation, a fourth one for the test."""
    files: dict[str, list[Atoms]] = {"train": [], "val": [], "test": []}
    for temperature in TEMPERATURES:
        for number, torsion in enumerate((*TORSIONS, TORSIONS[0])):
            samples = ethanol_trajectory(temperature, torsion, seed=10 * temperature + number)
            print(f"ethanol {temperature} K, trajectory {number}", flush=True)
            if number == len(TORSIONS):
                files["test"] += samples
                continue
            for index, sample in enumerate(samples):
                part = "val" if index % VALIDATION_EVERY == VALIDATION_EVERY // 2 else "train"
                files[part].append(sample)
    files["isolated_atoms"] = isolated_atoms(["H", "C", "O"], "GFN2-xTB")
    return files


def diamond(lattice_constant: float) -> Atoms:
    """The perfect supercell."""
    return bulk("C", "diamond", a=lattice_constant, cubic=True).repeat(DIAMOND_REPEAT)


def pressure(lattice_constant: float) -> float:
    """Minus the mean normal stress of the perfect supercell, eV/Å^3."""
    atoms = diamond(lattice_constant)
    atoms.calc = calculator("GFN1-xTB")
    return -float(atoms.get_stress()[:3].mean())


def relaxed_lattice_constant() -> float:
    """Lattice constant of the perfect supercell at zero stress, Å, by the secant method."""
    a, b = 3.45, 3.57
    pressure_a, pressure_b = pressure(a), pressure(b)
    while abs(pressure_b) > 1e-5:
        a, b = b, b - pressure_b * (b - a) / (pressure_b - pressure_a)
        pressure_a, pressure_b = pressure_b, pressure(b)
    return b


def random_strain(rng: np.random.Generator) -> NDArray[np.float64]:
    """Symmetric strain with components up to LARGEST_STRAIN, half of that off the diagonal."""
    strain = rng.uniform(-LARGEST_STRAIN, LARGEST_STRAIN, (3, 3))
    strain[~np.eye(3, dtype=bool)] *= 0.5
    return np.tril(strain) + np.tril(strain, -1).T


def diamond_structures(lattice_constant: float) -> Iterator[tuple[str, int, Atoms]]:
    """Kind, number within the kind and structure; 20 of each kind, in a fixed order."""
    rng = np.random.default_rng(2026)
    for number in range(20):
        for kind in ("strained", "rattled", "both"):
            atoms = diamond(lattice_constant)
            if kind != "rattled":
                cell = atoms.cell @ (np.eye(3) + random_strain(rng))
                atoms.set_cell(cell, scale_atoms=True)
            # Purely strained cells get a small push off their symmetric sites, to have forces too.
            rattle = rng.uniform(SMALLEST_RATTLE, LARGEST_RATTLE) if kind != "strained" else 0.005
            atoms.positions += rng.normal(0.0, rattle, atoms.positions.shape)
            yield kind, number, atoms


def make_diamond() -> dict[str, list[Atoms]]:
    """14 training, 2 validation and 4 test structures of each kind."""
    lattice_constant = relaxed_lattice_constant()
    print(f"diamond: lattice constant {lattice_constant:.4f} Å", flush=True)
    files: dict[str, list[Atoms]] = {"train": [], "val": [], "test": []}
    for kind, number, atoms in diamond_structures(lattice_constant):
        atoms.calc = calculator("GFN1-xTB")
        part = "train" if number < 14 else "val" if number < 16 else "test"
        files[part].append(labelled(atoms, kind))
        print(f"diamond {kind} {number}", flush=True)
    files["isolated_atoms"] = isolated_atoms(["C"], "GFN1-xTB")
    return files


def save(files: dict[str, list[Atoms]], folder: Path) -> None:
    """Writes one extended XYZ file per part."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, structures in files.items():
        write(folder / f"{part}.xyz", structures, format="extxyz")


def main() -> None:
    """Makes the sets named on the command line, all of them by default."""
    makers = {"ethanol": make_ethanol, "diamond": make_diamond}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=" or ".join(makers))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    unknown = set(arguments.sets) - set(makers)
    if unknown:
        parser.error(f"no such set: {', '.join(sorted(unknown))}; there are {', '.join(makers)}")
    for name in arguments.sets or makers:
        save(makers[name](), arguments.output / name)


if __name__ == "__main__":
    main()
