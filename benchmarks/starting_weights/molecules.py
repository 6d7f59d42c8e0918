"""Small organic molecules and their dimers, put together from fragments at random."""

from __future__ import annotations

import numpy as np
from rdkit import Chem, RDLogger

RDLogger.DisableLog("rdApp.*")

HELD_OUT = (
    "CC(=O)CC(C)=O",
    "CC(=O)C=C(C)O",
    "c1ccc(OCc2cccnc2N)cc1",
    "c1ccc(COc2cccnc2N)cc1",
    "CC(=O)Oc1ccccc1C(=O)O",
    "CCO",
    "O=CCC=O",
    "O=CC=CO",
    "O=c1cc[nH]c(=O)[nH]1",
    "c1ccc2ccccc2c1",
    "Cc1ccccc1",
    "O=C(O)c1ccccc1O",
    "CC(=O)Nc1ccc(O)cc1",
    "c1ccc(N=Nc2ccccc2)cc1",
    "c1ccccc1",
)
"""Acetylacetone, 3-(benzyloxy)pyridin-2-amine, and the ten of rMD17: models are tested on them."""

SMALL = (
    *("O", "N", "S", "C", "F", "Cl", "[H][H]", "C#N", "O=C=O", "[C-]#[O+]", "N#N", "OO", "NN"),
    *("C=O", "CO", "CN", "CS", "CF", "CCl", "C=C", "C#C", "CC", "O=C=S", "O=S=O", "NO", "N#CC#N"),
    *("[N-]=[N+]=O", "S=C=S", "C=C=O", "C=C=C", "ClCl", "FF", "SS", "FC(F)F", "ClC(Cl)Cl"),
)
"""Molecules that are no combination of the fragments, or that everybody simulates."""

FRAGMENTS = (
    *("C", "C", "C", "CC", "CC", "CCC", "C(C)C", "C(C)(C)C"),
    *("O", "O", "OC", "COC", "N", "N", "NC", "CN(C)C", "S", "SC", "CSC", "F", "F", "Cl", "Cl"),
    *("C=C", "C=CC", "CC=CC", "C#C", "C#N", "C=CC=C"),
    *("C=O", "CC=O", "CC(C)=O", "C(=O)O", "C(=O)OC", "C(=O)N", "CC(=O)N(C)C", "C(=O)Cl"),
    *("CC(O)=CC=O", "O=CC=CO", "OCC=O", "NCC(=O)O", "NC=O", "NC(N)=O", "COC(=O)OC", "C=N", "CC=NC"),
    *("C=NO", "CN=NC", "NC=N", "C[N+](=O)[O-]", "CON", "CNN"),
    *("CS(C)=O", "CS(C)(=O)=O", "CS(N)(=O)=O", "C=S", "CC(N)=S", "CSSC", "N=C=O", "CN=C=S"),
    *("c1ccccc1", "c1ccccc1", "c1ccncc1", "c1ccoc1", "c1cc[nH]c1", "c1ccsc1", "c1cnc[nH]1"),
    *("c1cnoc1", "c1cscn1", "c1cncnc1", "c1cn[nH]c1", "O=c1cc[nH]cc1", "c1ccc2[nH]ccc2c1"),
    *("C1CC1", "C1CCC1", "C1CCCC1", "C1CCCCC1", "C1CO1", "C1CCOC1", "C1CCNC1", "C1CCSC1"),
    *("C1CCOCC1", "C1CCNCC1", "C1=CCCC1", "C1COCCN1", "O=C1CCCN1", "O=C1CCCO1", "C1CN1"),
)
"""Joined by single bonds in place of hydrogen atoms; repeated ones are taken more often."""

LARGEST = 12
"""Heavy atoms."""


def canonical(smiles: str) -> str:
    """Return RDKit's canonical SMILES."""
    return str(Chem.MolToSmiles(Chem.MolFromSmiles(smiles)))


def draw_molecule(rng: np.random.Generator) -> str:
    """Draw the SMILES of a molecule that is none of those held out."""
    held_out = {canonical(smiles) for smiles in HELD_OUT}
    while True:
        if rng.random() < 0.06:
            return str(rng.choice(SMALL))
        molecule = Chem.MolFromSmiles(str(rng.choice(FRAGMENTS)))
        for _ in range(rng.integers(0, 4)):
            grown = _join(molecule, Chem.MolFromSmiles(str(rng.choice(FRAGMENTS))), rng)
            if grown is not None and grown.GetNumHeavyAtoms() <= LARGEST:
                molecule = grown
        smiles = str(Chem.MolToSmiles(molecule))
        if smiles not in held_out:
            return smiles


def _join(one: Chem.Mol, other: Chem.Mol, rng: np.random.Generator) -> Chem.Mol | None:
    """Bind two molecules in place of a hydrogen atom of each; None for an unusual bond."""
    first = [atom.GetIdx() for atom in one.GetAtoms() if atom.GetTotalNumHs() > 0]
    second = [atom.GetIdx() for atom in other.GetAtoms() if atom.GetTotalNumHs() > 0]
    if not first or not second:
        return None
    i, j = int(rng.choice(first)), int(rng.choice(second))
    atoms = one.GetAtomWithIdx(i), other.GetAtomWithIdx(j)
    carbons = sum(atom.GetSymbol() == "C" for atom in atoms)
    if carbons == 0 or (carbons == 1 and _has_leaving_group(atoms)):
        return None
    both = Chem.RWMol(Chem.CombineMols(one, other))
    both.AddBond(i, one.GetNumAtoms() + j, Chem.BondType.SINGLE)
    for index in (i, one.GetNumAtoms() + j):
        atom = both.GetAtomWithIdx(index)
        if atom.GetNumExplicitHs() > 0:
            atom.SetNumExplicitHs(atom.GetNumExplicitHs() - 1)
    try:
        Chem.SanitizeMol(both)
    except ValueError:
        return None
    return both.GetMol()


def _has_leaving_group(atoms: tuple[Chem.Atom, Chem.Atom]) -> bool:
    """Return whether a carbon would carry two of N, O, S and halogens by single bonds."""
    carbon = next(atom for atom in atoms if atom.GetSymbol() == "C")
    singly = [
        bond.GetOtherAtom(carbon).GetSymbol()
        for bond in carbon.GetBonds()
        if bond.GetBondType() == Chem.BondType.SINGLE
    ]
    return any(symbol not in ("C", "H", "F") for symbol in singly) and not carbon.GetIsAromatic()
