"""Thermal geometries of molecules and dimers: MMFF94 dynamics, then a step along GFN2 forces."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.data import atomic_masses, covalent_radii
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import AllChem

from benchmarks.starting_weights.molecules import draw_molecule

Array = NDArray[np.float64]

BOLTZMANN = 0.0019872041
"""kcal/mol/K."""
ACCELERATION = 4.184e-4
"""kcal/mol/Å per atomic mass unit, in Å/fs^2."""
TEMPERATURES = (300.0, 600.0, 1000.0)
TIME_STEP = 0.5
"""fs."""
FRICTION = 0.02
"""1/fs."""
N_STEPS = 400
DIMERS = 0.3
"""Share of draws that ask for a second molecule; if one of the two has more than `DIMER_ATOMS`
atoms, everything is drawn again, so that fewer dimers come out."""
DIMER_ATOMS = 14
STRETCHED = 0.15
"""Share of geometries in which a bond is stretched or a hydrogen atom is moved over."""


def draw_geometry(rng: np.random.Generator) -> tuple[str, list[int], Array]:
    """Draw SMILES, atomic numbers and positions in Å of a molecule or a dimer."""
    while True:
        molecule = _embed(draw_molecule(rng), rng)
        if molecule is None:
            continue
        if rng.random() < DIMERS:
            molecule = _pair_up(molecule, rng)
            if molecule is None:
                continue
        positions = _run_dynamics(molecule, float(rng.choice(TEMPERATURES)), rng)
        if positions is None:
            continue
        if rng.random() < STRETCHED:
            positions = _stretch(molecule, positions, rng)
        numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
        if _has_clash(numbers, positions):
            continue
        return Chem.MolToSmiles(Chem.RemoveHs(molecule)), numbers, positions


def _embed(smiles: str, rng: np.random.Generator) -> Chem.Mol | None:
    """Give a molecule hydrogen atoms and a conformer."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    seed = int(rng.integers(2**31 - 1))
    if AllChem.EmbedMolecule(molecule, randomSeed=seed, maxAttempts=5) != 0:
        return None
    return molecule if AllChem.MMFFHasAllMoleculeParams(molecule) else None


def _pair_up(one: Chem.Mol, rng: np.random.Generator) -> Chem.Mol | None:
    """Put a second molecule beside one, from close contact to 4 Å farther, in any direction."""
    other = _embed(draw_molecule(rng), rng)
    if other is None or max(one.GetNumAtoms(), other.GetNumAtoms()) > DIMER_ATOMS:
        return None
    first = one.GetConformer().GetPositions()
    second = other.GetConformer().GetPositions()
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    second = (second - second.mean(axis=0)) @ (turn * np.sign(np.linalg.det(turn)))
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    centre = first.mean(axis=0)
    gap = 1.8 + 4.0 * rng.random() ** 2
    for far in np.arange(0.0, 20.0, 0.1):
        moved = second + centre + far * direction
        distance = np.linalg.norm(first[:, None] - moved[None], axis=2)
        if distance.min() >= gap:
            break
    both = Chem.Mol(Chem.CombineMols(one, other))
    Chem.SanitizeMol(both)
    both.GetConformer().SetPositions(np.concatenate([first, moved]))
    return both if AllChem.MMFFHasAllMoleculeParams(both) else None


def _run_dynamics(molecule: Chem.Mol, temperature: float, rng: np.random.Generator) -> Array | None:
    """Run Langevin dynamics with MMFF94 from a relaxed geometry; None if it fails."""
    properties = AllChem.MMFFGetMoleculeProperties(molecule)
    field = AllChem.MMFFGetMoleculeForceField(
        molecule, properties, ignoreInterfragInteractions=False
    )
    if field is None:
        return None
    field.Initialize()
    field.Minimize(maxIts=50)
    masses = atomic_masses[[atom.GetAtomicNum() for atom in molecule.GetAtoms()]][:, None]
    spread = np.sqrt(BOLTZMANN * temperature * ACCELERATION / masses)
    x = np.array(molecule.GetConformer().GetPositions())
    v = spread * rng.normal(size=x.shape)
    keep = np.exp(-FRICTION * TIME_STEP)
    kick = spread * np.sqrt(1.0 - keep**2)
    per_mass = -ACCELERATION / masses
    a = per_mass * _gradient(field, x)
    for _ in range(N_STEPS):
        v += 0.5 * TIME_STEP * a
        x += 0.5 * TIME_STEP * v
        v = keep * v + kick * rng.normal(size=x.shape)
        x += 0.5 * TIME_STEP * v
        a = per_mass * _gradient(field, x)
        v += 0.5 * TIME_STEP * a
    return x if np.isfinite(x).all() else None


def _gradient(field: Any, positions: Array) -> Array:
    """Compute the gradient of the energy in kcal/mol/Å."""
    # Without this RDKit takes the bond lengths from the geometry before.
    field.Initialize()
    return np.reshape(field.CalcGrad(positions.ravel().tolist()), positions.shape)


def _stretch(molecule: Chem.Mol, positions: Array, rng: np.random.Generator) -> Array:
    """Move a hydrogen atom towards an acceptor beside it, or what hangs on a bond along it."""
    x = positions.copy()
    hydrogens = [
        atom.GetIdx()
        for atom in molecule.GetAtoms()
        if atom.GetAtomicNum() == 1 and atom.GetNeighbors()
    ]
    acceptors = [atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetAtomicNum() in (7, 8)]
    moves = []
    for h in hydrogens:
        donor = molecule.GetAtomWithIdx(h).GetNeighbors()[0]
        if donor.GetAtomicNum() in (7, 8):
            moves += [
                (h, donor.GetIdx(), a)
                for a in acceptors
                if a != donor.GetIdx() and np.linalg.norm(x[h] - x[a]) < 2.4
            ]
    if moves:
        h, donor, acceptor = moves[rng.integers(len(moves))]
        share = 0.3 + 0.4 * rng.random()
        x[h] = x[donor] + share * (x[acceptor] - x[donor])
        return x
    bonds = [bond for bond in molecule.GetBonds() if not bond.IsInRing()]
    if not bonds:
        return x
    bond = bonds[rng.integers(len(bonds))]
    i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
    cut = Chem.RWMol(molecule)
    cut.RemoveBond(i, j)
    side = next(list(part) for part in Chem.GetMolFrags(cut) if j in part)
    x[side] += (0.6 * rng.random() ** 2 - 0.1) * (x[j] - x[i])
    return x


def _has_clash(numbers: list[int], positions: Array) -> bool:
    """Return whether two atoms are nearer than 0.6 of the sum of their covalent radii."""
    radii = covalent_radii[numbers]
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return bool((distance < 0.6 * (radii[:, None] + radii[None])).any())
