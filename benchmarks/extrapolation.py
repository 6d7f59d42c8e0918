"""Errors and uncertainties of a model of ethanol far from what it was trained on.

    python -m benchmarks.extrapolation demo/model.pt --picture scans.png

Relaxes ethanol by GFN2-xTB, stretches and compresses its bonds, bends its CCO angle, turns its
hydroxyl group, and brings a second molecule near. Prints for each of these scans the root mean
square error of forces and of energies beside that of the uncertainties, the part of force
components and of energies within one and two standard deviations, and the rank correlation
(Spearman) of uncertainties and errors over the atoms, and of energies; the picture has the curves.
Several models are a committee. For models that were trained on GFN2-xTB (`make demo`,
`organic-xtb`). Needs tblite.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import typer
from ase import Atoms
from ase.build import molecule
from ase.neighborlist import natural_cutoffs, neighbor_list
from ase.optimize import BFGS
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from benchmarks.command import make_app, run_app
from benchmarks.committees import NAMES, rank
from pet_mlip import PETCalculator

COLUMNS = (
    *("forces, meV/Å", "their uncertainty", "within 1 and 2 sigma", "rank"),
    *("energy, meV", "its uncertainty", "within 1 and 2 sigma", "rank"),
)
CH3, CH2, OXYGEN, HYDROXYL = 0, 1, 2, 3
"""Atoms of ASE's molecule."""
Scan = list[tuple[float, Atoms]]
"""Structures and where on the scan they are."""
app = make_app()


@app.command()
def main(
    models: Annotated[
        list[str], typer.Argument(help="Exported model, or shipped weights; or a committee.")
    ],
    picture: Annotated[Path | None, typer.Option(help="File for the curves (.png, .pdf).")] = None,
) -> None:
    """Evaluate the scans."""
    calculator = PETCalculator(models if len(models) > 1 else models[0])
    print(f"| scan | {' | '.join(COLUMNS)} |\n| --- |{' --- |' * len(COLUMNS)}")
    curves = {}
    for name, scan in make_scans(relaxed_ethanol()).items():
        structures = [labelled(atoms) for _, atoms in scan]
        found = calculator.compute_batch(structures, NAMES)
        print(f"| {name} | {' | '.join(compare(structures, found))} |", flush=True)
        curves[name] = [where for where, _ in scan], structures, found
    if picture is not None:
        draw(curves, picture)


def relaxed_ethanol() -> Atoms:
    """Return the trans conformer's minimum."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = reference()
    BFGS(atoms, logfile=None).run(fmax=0.01)
    atoms.calc = None
    return atoms


def make_scans(atoms: Atoms) -> dict[str, Scan]:
    """Move parts of a molecule; abscissae are bond lengths over those of the minimum, and degrees.

    Args:
        atoms: Ethanol at its minimum.
    """
    methyl = next(k for k, n in bonds(atoms) if n == CH3 and atoms.symbols[k] == "H")
    factors = np.linspace(0.8, 2.0, 25)
    scans: dict[str, Scan] = {}
    for fixed, moved in ((CH3, CH2), (CH2, OXYGEN), (OXYGEN, HYDROXYL), (CH3, methyl)):
        part = beyond(atoms, fixed, moved)
        bond = atoms.positions[moved] - atoms.positions[fixed]
        scan = []
        for factor in factors:
            stretched = atoms.copy()
            stretched.positions[part] += (factor - 1) * bond
            scan.append((float(factor), stretched))
        scans[f"{atoms.symbols[fixed]}-{atoms.symbols[moved]} bond, 0.8 to 2"] = scan
    scan = []
    for angle in np.arange(70.0, 171.0, 5.0):
        bent = atoms.copy()
        bent.set_angle(CH3, CH2, OXYGEN, angle, indices=beyond(atoms, CH2, OXYGEN))
        scan.append((float(angle), bent))
    scans["CCO angle, 70° to 170°"] = scan
    scan = []
    for angle in np.arange(0.0, 360.0, 15.0):
        turned = atoms.copy()
        turned.set_dihedral(CH3, CH2, OXYGEN, HYDROXYL, angle, indices=[HYDROXYL])
        scan.append((float(angle), turned))
    scans["hydroxyl group, turned"] = scan
    scan = []
    for distance in np.linspace(3.2, 8.0, 17):
        first, second = atoms.copy(), atoms.copy()
        first.positions -= first.positions.mean(axis=0)
        second.positions = first.positions
        second.rotate(90, "x")
        second.positions += [0, 0, distance]
        scan.append((float(distance), first + second))
    scans["two molecules, 3.2 Å to 8 Å"] = scan
    return scans


def bonds(atoms: Atoms) -> list[tuple[int, int]]:
    """List bonded pairs, both ways."""
    first, second = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2))
    return list(zip(first.tolist(), second.tolist(), strict=True))


def beyond(atoms: Atoms, fixed: int, moved: int) -> list[int]:
    """List the atoms on the second side of a bond."""
    left = [pair for pair in bonds(atoms) if set(pair) != {fixed, moved}]
    rows, columns = zip(*left, strict=True)
    size = len(atoms)
    graph = csr_array((np.ones(len(left)), (rows, columns)), shape=(size, size))
    _, part = connected_components(graph, directed=False)
    return [k for k in range(size) if part[k] == part[moved]]


def reference() -> Any:
    """Return the calculator whose labels are right."""
    from tblite.ase import TBLite  # not everybody has it

    return TBLite(method="GFN2-xTB", verbosity=0)


def labelled(atoms: Atoms) -> Atoms:
    """Compute the reference's energy and forces."""
    atoms.calc = reference()
    atoms.get_forces()
    return atoms


def compare(structures: list[Atoms], found: list[dict[str, Any]]) -> list[str]:
    """Return the columns of the table."""
    pairs = list(zip(found, structures, strict=True))
    energy = np.array([f["energy"] - atoms.get_potential_energy() for f, atoms in pairs])
    forces = np.concatenate([f["forces"] - atoms.get_forces() for f, atoms in pairs])
    of_energy = np.array([f["energy_uncertainty"] for f in found])
    of_forces = np.concatenate([f["forces_uncertainty"] for f in found])
    return [
        f"{1000 * rms(forces):.0f}",
        f"{1000 * rms(of_forces):.0f}",
        within(forces, of_forces[:, None]),
        f"{rank(np.linalg.norm(forces, axis=1).tolist(), of_forces.tolist()):.2f}",
        f"{1000 * rms(energy):.1f}",
        f"{1000 * rms(of_energy):.1f}",
        within(energy, of_energy),
        f"{rank(np.abs(energy).tolist(), of_energy.tolist()):.2f}",
    ]


def rms(values: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(values**2)))


def within(errors: np.ndarray, sigma: np.ndarray) -> str:
    """Say which part of the errors lies within one and two standard deviations."""
    one, two = (float(np.mean(np.abs(errors) < k * sigma)) for k in (1, 2))
    return f"{one:.2f}, {two:.2f}"


def draw(curves: dict[str, Any], picture: Path) -> None:
    """Draw errors and uncertainties along the scans, of energies above and of forces below."""
    figure, panels = plt.subplots(
        2, len(curves), figsize=(2.4 * len(curves), 4.6), sharex="col", layout="constrained"
    )
    for column, (name, (where, structures, found)) in zip(panels.T, curves.items(), strict=True):
        column[0].set_title(name, fontsize=8)
        pairs = list(zip(found, structures, strict=True))
        rows = (
            (
                [abs(f["energy"] - a.get_potential_energy()) for f, a in pairs],
                [f["energy_uncertainty"] for f in found],
            ),
            (
                [rms(f["forces"] - a.get_forces()) for f, a in pairs],
                [rms(f["forces_uncertainty"]) for f in found],
            ),
        )
        for axes, (errors, sigma) in zip(column, rows, strict=True):
            axes.semilogy(where, errors, "o", markersize=3, color="#e07a1f", label="error")
            axes.semilogy(where, sigma, color="#2a6f97", label="uncertainty")
    panels[0, 0].set_ylabel("energy / eV")
    panels[1, 0].set_ylabel("forces, root mean square / eV/Å")
    panels[0, 0].legend(frameon=False)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    run_app(app)
