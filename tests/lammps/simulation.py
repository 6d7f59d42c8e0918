"""Runs LAMMPS in a process of its own and reads what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data

BAR = 1.602176634e6
"""Bars in one eV/Å^3."""

THERMO = "step temp pe etotal press pxx pyy pzz pxy pxz pyz"
COLUMNS = "id xu yu zu fx fy fz c_pe c_st[*] c_cst[*]"


@dataclass
class Run:
    """Output of one LAMMPS process."""

    log: str
    thermo: list[dict[str, float]]
    """Rows of all runs."""
    dumps: list[np.ndarray]
    """Of each dumped step: id, unwrapped x (3), f (3), energy, virial (6), centroid (9)."""

    @property
    def energy(self) -> float:
        """Potential energy of the last step, in LAMMPS' unit."""
        return self.thermo[-1]["PotEng"]

    @property
    def positions(self) -> np.ndarray:
        """Of the last dumped step, ordered by ID, (N, 3)."""
        return self.dumps[-1][:, 1:4]

    @property
    def forces(self) -> np.ndarray:
        """Of the last dumped step, ordered by ID, (N, 3)."""
        return self.dumps[-1][:, 4:7]

    @property
    def atomic_energies(self) -> np.ndarray:
        """(N,)."""
        return self.dumps[-1][:, 7]

    @property
    def virials(self) -> np.ndarray:
        """xx yy zz xy xz yz of each atom, minus stress times volume as LAMMPS gives it, (N, 6)."""
        return self.dumps[-1][:, 8:14]

    @property
    def centroid_virials(self) -> np.ndarray:
        """xx yy zz xy xz yz yx zx zy of each atom, (N, 9)."""
        return self.dumps[-1][:, 14:23]

    @property
    def pressure(self) -> np.ndarray:
        """xx yy zz xy xz yz of the last step, in LAMMPS' unit."""
        last = self.thermo[-1]
        return np.array([last[k] for k in ("Pxx", "Pyy", "Pzz", "Pxy", "Pxz", "Pyz")])


class Lammps:
    """Runs decks in a folder, with the plugin found by LAMMPS_PLUGIN_PATH.

    Args:
        plugin: Folder of the plugin.
        folder: Where the decks run.
    """

    def __init__(self, plugin: Path, folder: Path) -> None:
        self.plugin = plugin
        self.folder = folder

    def start(self, deck: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
        """Run a deck, whatever comes of it."""
        (self.folder / "in.x").write_text(deck)
        scripts = Path(sys.executable).parent
        command = [str(scripts / "lmp"), "-in", "in.x", "-log", "none"]
        if ranks > 1:
            command = [str(scripts / "mpiexec"), "-n", str(ranks), *command]
        environment = {
            **os.environ,
            "LAMMPS_PLUGIN_PATH": str(self.plugin),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=500
        )

    def __call__(self, deck: str, ranks: int = 1) -> Run:
        """Run a deck that must succeed."""
        for old in self.folder.glob("*.dump"):
            old.unlink()
        done = self.start(deck, ranks)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        dumps = [d for p in sorted(self.folder.glob("*.dump")) for d in read_dump(p)]
        return Run(done.stdout, read_thermo(done.stdout), dumps)

    def fails(self, deck: str, ranks: int = 1) -> str:
        """The one error of a deck that must fail."""
        done = self.start(deck, ranks)
        output = done.stdout + done.stderr
        assert done.returncode != 0, output
        errors = [line for line in output.splitlines() if line.startswith("ERROR")]
        assert errors, output[-2000:]
        return errors[0]


def read_thermo(log: str) -> list[dict[str, float]]:
    """Every row of thermodynamic output."""
    rows, names = [], None
    for line in log.splitlines():
        words = line.split()
        if words[:1] == ["Step"]:
            names = words
        elif line.startswith("Loop time"):
            names = None
        elif names and len(words) == len(names) and words[0].isdigit():
            rows.append(dict(zip(names, map(float, words), strict=True)))
    return rows


def read_dump(path: Path) -> list[np.ndarray]:
    """Rows of each step of a custom dump, (N, columns)."""
    lines = path.read_text().splitlines()
    tables, k = [], 0
    while k < len(lines):
        n = int(lines[k + 3])
        rows = [line.split() for line in lines[k + 9 : k + 9 + n]]
        tables.append(np.array(rows, dtype=float))
        k += 9 + n
    return tables


def oriented(atoms: Atoms) -> Atoms:
    """The same structure in LAMMPS' orientation of the cell."""
    turn = Prism(atoms.cell.array, pbc=atoms.pbc).vector_to_lammps(np.eye(3))
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ turn)
    atoms.positions = atoms.positions @ turn
    return atoms


def write_data(folder: Path, atoms: Atoms, elements: list[str]) -> None:
    """``a.data`` for ``read_data``; the atoms must be oriented as LAMMPS wants them."""
    write_lammps_data(
        folder / "a.data", atoms, masses=True, specorder=elements, atom_style="atomic"
    )


def deck(
    elements: str,
    *,
    run: str = "run 0",
    setup: str = "",
    style: str = "device cpu",
    boundary: str = "p p p",
    units: str = "metal",
    newton: str = "on",
    read: str = "read_data a.data",
    pair: str | None = None,
) -> str:
    """An input deck that prints and dumps everything that is compared."""
    pair = pair or f"pair_style pet {style}\npair_coeff * * model.pt {elements}"
    return f"""
units {units}
atom_style atomic
atom_modify map yes
boundary {boundary}
newton {newton}
{read}
{pair}
{setup}
compute pe all pe/atom
compute st all stress/atom NULL virial
compute cst all centroid/stress/atom NULL virial
thermo_style custom {THERMO}
thermo_modify format float %22.15g
dump d all custom 50 a.dump {COLUMNS}
dump_modify d sort id format float %22.15g
{run}
"""
