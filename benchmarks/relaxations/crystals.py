"""Crystals with all the symmetry of their space group, and what space group some atoms have."""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import ase.io
import spglib
from ase import Atoms

from pet_mlip.errors import UserError

SYSTEMS = {
    "triclinic": 2,
    "monoclinic": 15,
    "orthorhombic": 74,
    "tetragonal": 142,
    "trigonal": 167,
    "hexagonal": 194,
    "cubic": 230,
}
"""Crystal systems, with the number of the last space group of each."""
PER_SYSTEM = 8
"""Crystals of each system in the benchmark (where the library has as many)."""
MAX_ATOMS = 16
"""Of the primitive cell."""
COLUMNS = (
    "H Li Na K Rb Cs",
    "Be Mg Ca Sr Ba",
    "Sc Y La",
    "Ti Zr Hf",
    "V Nb Ta",
    "Cr Mo W",
    "Mn Re",
    "Fe Ru Os",
    "Co Rh Ir",
    "Ni Pd Pt",
    "Cu Ag Au",
    "Zn Cd Hg",
    "B Al Ga In Tl",
    "C Si Ge Sn Pb",
    "N P As Sb Bi",
    "O S Se Te",
    "F Cl Br I",
)
"""Elements that take each other's place in a crystal."""
ELEMENTS = {symbol for column in COLUMNS for symbol in column.split()}
"""What the models of the benchmark know."""
MOLECULES = {"H", "N", "O", "F", "Cl", "Br", "C"}
"""Crystals of these alone are left out, graphite and diamond excepted: they are of molecules."""
SHIPPED = Path(__file__).with_name("crystals.xyz")
START = 1e-5
"""Å within which a crystal must have its space group before it is relaxed."""


@dataclass(frozen=True)
class Crystal:
    """Atoms and the space group that they have."""

    name: str
    atoms: Atoms
    number: int

    @property
    def system(self) -> str:
        """The crystal system."""
        return next(name for name, last in SYSTEMS.items() if self.number <= last)


def cell_of(atoms: Atoms) -> tuple:
    """What spglib calls a cell."""
    return (atoms.cell.array, atoms.get_scaled_positions(wrap=False), atoms.numbers)


def space_group(atoms: Atoms, tolerance: float) -> int:
    """Find the number of the space group, 1 where spglib finds none."""
    found = spglib.get_symmetry_dataset(cell_of(atoms), symprec=tolerance)
    return 1 if found is None else int(found.number)


def idealized(atoms: Atoms, tolerance: float = 0.01) -> Atoms | None:
    """Return the primitive cell with the symmetry made exact; None where that is not possible."""
    cell = spglib.standardize_cell(cell_of(atoms), to_primitive=True, symprec=tolerance)
    if cell is None:
        return None
    ideal = Atoms(numbers=cell[2], cell=cell[0], scaled_positions=cell[1], pbc=True)
    same = space_group(ideal, START) == space_group(atoms, tolerance)
    return ideal if same else None


def aflow_library() -> list[Crystal]:
    """Return the prototypes of the AFLOW encyclopedia that the models can know.

    They are real crystals (Mehl et al., Comput. Mater. Sci. 136, S1 (2017)), as pymatgen brings
    them: primitive cells of at most `MAX_ATOMS` atoms and of `ELEMENTS` only, one of each space
    group and formula, and none without any symmetry or of molecules.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY
        from pymatgen.io.ase import AseAtomsAdaptor

    found: dict[tuple[str, int], Crystal] = {}
    for entry in AFLOW_PROTOTYPE_LIBRARY:
        structure = entry["snl"].structure
        if not structure.is_ordered:
            continue
        given = AseAtomsAdaptor.get_atoms(structure)
        atoms = idealized(Atoms(given.numbers, given.positions, cell=given.cell, pbc=True))
        if atoms is None or len(atoms) > MAX_ATOMS or set(atoms.symbols) - ELEMENTS:
            continue
        number = space_group(atoms, START)
        if number == 1 or (set(atoms.symbols) <= MOLECULES and set(atoms.symbols) != {"C"}):
            continue  # nothing to lose, or held together by dispersion
        formula = atoms.get_chemical_formula(empirical=True)
        key = (formula, number)
        found.setdefault(key, Crystal(f"{formula}-{number}", atoms, number))
    return list(found.values())


def choose(library: list[Crystal]) -> list[Crystal]:
    """Choose the benchmark's: of each crystal system as many, evenly over the space groups."""
    systems = defaultdict(list)
    for crystal in sorted(library, key=lambda crystal: (crystal.number, crystal.name)):
        systems[crystal.system].append(crystal)
    chosen = []
    for name in SYSTEMS:
        there = systems[name]
        wanted = min(PER_SYSTEM, len(there))
        chosen += [there[k * len(there) // wanted] for k in range(wanted)]
    return chosen


def read_crystals(path: Path) -> list[Crystal]:
    """Read crystals from any file that ASE reads; their space group is found, and made exact.

    Raises:
        UserError: The file cannot be read, has no crystal, two of the same name, or one whose
            symmetry is not clear.
    """
    try:
        structures = ase.io.read(path, ":")
    except Exception as error:
        raise UserError(f"{path} cannot be read as structures: {error}") from None
    crystals = []
    for place, given in enumerate(structures):
        name = str(given.info.get("name", f"{given.get_chemical_formula(empirical=True)}-{place}"))
        if not given.pbc.all():
            raise UserError(f"{path}, structure {place} ({name}): it is not periodic everywhere.")
        atoms = idealized(given)
        if atoms is None:
            raise UserError(
                f"{path}, structure {place} ({name}): spglib finds no space group that holds "
                f"within both 0.01 and {START} Å; give coordinates with more digits."
            )
        if any(name == crystal.name for crystal in crystals):
            raise UserError(f"{path}, structure {place}: another one is called {name!r} too.")
        crystals.append(Crystal(name, atoms, space_group(atoms, START)))
    return crystals


def write_crystals(path: Path, crystals: list[Crystal]) -> None:
    """Write them; `read_crystals` makes what the digits round exact again."""
    structures = []
    for crystal in crystals:
        atoms = crystal.atoms.copy()
        atoms.info = {"name": crystal.name, "space_group": crystal.number}
        structures.append(atoms)
    ase.io.write(path, structures, format="extxyz")
