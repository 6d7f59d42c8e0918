"""Compares the plugin in a LAMMPS with Python, on a small crystal and a random model."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.export import save_model
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.lammps.launch import command_line, environment

Floats = NDArray[np.float64]
BOUND = 1e-8
ELEMENTS = ("O", "Si")
BAR = 1.6021765e6  # bars in one eV/Å^3, as LAMMPS has it in units metal
VIRIAL = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")  # the order of ASE's stress
DECK = """\
units metal
atom_style atomic
read_data crystal.data
pair_style pet device {device}
pair_coeff * * model.pt {elements}
thermo_style custom step pe pxx pyy pzz pyz pxz pxy
run 0
print "values {values}"
write_dump all custom forces.dump id fx fy fz modify sort id format float %.17g
"""


@dataclass(frozen=True)
class Difference:
    """How far LAMMPS is from Python."""

    energy: float
    """eV per atom."""
    forces: float
    """Largest difference of a component, eV/Å."""
    pressure: float
    """Largest difference of a component, eV/Å^3."""

    @property
    def passed(self) -> bool:
        """Whether all of them are below `BOUND`."""
        return max(self.energy, self.forces, self.pressure) < BOUND


def check(executable: Path, plugin: Path, ranks: int = 1, device: str = "cpu") -> Difference:
    """Evaluate a crystal with LAMMPS in a process of its own, and with `PETCalculator`.

    Args:
        executable: LAMMPS' program.
        plugin: Folder of the plugin.
        ranks: Number of MPI processes.
        device: Of the pair style: cpu, cuda, cuda:N or auto.

    Raises:
        UserError: LAMMPS fails; the message has its words.
    """
    with tempfile.TemporaryDirectory(prefix="pet-mlip-check-") as name:
        folder = Path(name)
        atoms = crystal()
        save_model(folder / "model.pt", random_potential(), dtype="float64")
        (folder / "crystal.data").write_text(data_file(atoms))
        quantities = " ".join(f"$({quantity}:%.17g)" for quantity in ("pe", *VIRIAL))
        deck = DECK.format(device=device, elements=" ".join(ELEMENTS), values=quantities)
        (folder / "in.check").write_text(deck)
        values = _run(executable, plugin, ranks, folder)
        found = np.loadtxt(folder / "forces.dump", skiprows=9)[:, 1:]
        atoms.calc = PETCalculator(folder / "model.pt", device="cpu")
        energy = atoms.get_potential_energy()
        forces, stress = atoms.get_forces(), atoms.get_stress()
    return Difference(
        float(abs(values[0] - energy)) / len(atoms),
        float(np.abs(found - forces).max()),
        float(np.abs(values[1:] / BAR + stress).max()),
    )


def random_potential() -> Potential:
    """A small model with ECSE and two layers of message passing, always the same."""
    hypers = PETHypers(
        cutoff=4.0,
        d_pet=16,
        d_node=16,
        d_head=16,
        d_feedforward=32,
        num_heads=2,
        num_attention_layers=1,
        num_gnn_layers=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        numbers = [atomic_numbers[symbol] for symbol in ELEMENTS]
        potential = Potential(numbers, hypers, SymmetrizationHypers()).set_dtype(torch.float64)
    potential.set_baseline({8: -4.0, 14: -3.0}, 1.0)
    return potential.eval()


def crystal() -> Atoms:
    """A distorted triclinic crystal of 24 atoms, its cell as LAMMPS wants it."""
    cell = np.array([[4.8, 0.0, 0.0], [0.7, 5.1, 0.0], [-0.5, 0.9, 5.4]])
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid([0.0, 0.5], [0.0, 1 / 3, 2 / 3], [0.1, 0.35, 0.6, 0.85]), axis=-1)
    fractional = grid.reshape(-1, 3) + rng.uniform(-0.03, 0.03, (24, 3))
    numbers = [atomic_numbers[symbol] for symbol in ("O", "O", "Si")] * 8
    atoms = Atoms(numbers, scaled_positions=fractional, cell=1.5 * cell, pbc=True)
    atoms.wrap()
    return atoms


def data_file(atoms: Atoms) -> str:
    """A periodic structure for LAMMPS' read_data; its cell must be lower triangular."""
    _, (xy, _, _), (xz, yz, _) = atoms.cell.array.tolist()
    types = [ELEMENTS.index(symbol) + 1 for symbol in atoms.get_chemical_symbols()]
    masses = [atomic_masses[atomic_numbers[symbol]] for symbol in ELEMENTS]
    lines = ["crystal of the self-test", "", f"{len(atoms)} atoms", f"{len(ELEMENTS)} atom types"]
    lines += [
        f"0 {length!r} {a}lo {a}hi"
        for length, a in zip(atoms.cell.array.diagonal().tolist(), "xyz", strict=True)
    ]
    lines += [f"{xy!r} {xz!r} {yz!r} xy xz yz", "", "Masses", ""]
    lines += [f"{k} {mass}" for k, mass in enumerate(masses, 1)]
    lines += ["", "Atoms # atomic", ""]
    for k, (of_type, (x, y, z)) in enumerate(zip(types, atoms.positions.tolist(), strict=True), 1):
        lines.append(f"{k} {of_type} {x!r} {y!r} {z!r}")
    return "\n".join(lines) + "\n"


def _run(executable: Path, plugin: Path, ranks: int, folder: Path) -> Floats:
    arguments = ["-in", "in.check", "-log", "none"]
    done = subprocess.run(
        command_line(executable, arguments, ranks),
        env=environment(executable, plugin),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    output = done.stdout + done.stderr
    values = [line.split()[1:] for line in output.splitlines() if line.startswith("values ")]
    if done.returncode != 0 or not values:
        lines = output.strip().splitlines()
        said = [line for line in lines if "ERROR" in line] or lines[-3:]
        raise UserError(f"LAMMPS failed on {ranks} rank(s): {' '.join(said) or 'no output'}")
    return np.array(values[-1], dtype=np.float64)
