"""Tables and pictures of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read
from numpy.typing import NDArray

from pet_mlip import PETCalculator
from pet_mlip.evaluate.equivariance import transformed
from pet_mlip.evaluate.plots import BLUE, GREY, ORANGE, new_figure, read_columns, save
from pet_mlip.export import read_metadata
from pet_mlip.version import __version__

Floats = NDArray[np.float64]

ANGLES = np.linspace(0.0, 360.0, 121)
SETTLING = 0.25  # part of the Langevin trajectory that is left out of averages


def energies_over_rotation(folder: Path, structures: Path) -> dict[str, Floats]:
    """Energy of one structure while it is turned about an axis, in meV relative to the mean."""
    atoms = read(structures, "0")
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    turned = [transformed(atoms, rotation(axis, np.radians(angle))) for angle in ANGLES]
    curves = {}
    for name in ("model", "plain"):
        results = PETCalculator(folder / f"{name}.pt").compute_batch(turned, ["energy"])
        energies = 1000.0 * np.array([result["energy"] for result in results])
        curves[name] = energies - energies.mean()
    return curves


def rotation(axis: Floats, angle: float) -> Floats:
    """Rotation about a unit vector by so many radians (Rodrigues' formula), (3, 3)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    matrix: Floats = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix


def plot_rotation(path: Path, curves: dict[str, Floats]) -> None:
    """The two curves in one panel: their ratio is the message."""
    figure, (axes,) = new_figure(5.4, 3.2)
    axes.plot(ANGLES, curves["plain"], color=ORANGE, label="without the ensemble")
    axes.plot(ANGLES, curves["model"], color=BLUE, label="with ECSE")
    axes.set(
        xlabel="rotation angle / degrees", ylabel="energy - mean / meV", xticks=range(0, 361, 60)
    )
    axes.set_title("energy of a turned molecule")
    axes.legend(frameon=False)
    save(figure, path)


def plot_energies(path: Path, nve: dict[str, Floats], n_atoms: int) -> None:
    """Total energy, and the potential energy that it is balanced from, both per atom."""
    figure, panels = new_figure(8.4, 3.0, 2)
    for axes, names in zip(panels, (("potential", "total"), ("total",)), strict=True):
        for name in names:
            energies = 1000.0 * (nve[name] - nve["total"][0]) / n_atoms
            color = BLUE if name == "total" else GREY
            axes.plot(nve["time_ps"], energies, color=color, label=name, linewidth=0.8)
        axes.set(xlabel="time / ps", ylabel="energy - first total / meV/atom")
    panels[0].margins(y=0.2)
    panels[0].legend(frameon=False, loc="lower right", ncols=2)
    panels[0].set_title("NVE: potential and total energy")
    panels[1].set_title("total energy alone")
    save(figure, path)


def plot_temperature(path: Path, nvt: dict[str, Floats], target: float) -> None:
    """Temperature of the thermostatted run."""
    figure, (axes,) = new_figure(5.4, 2.8)
    axes.plot(nvt["time_ps"], nvt["temperature"], color=BLUE, linewidth=0.8)
    axes.axhline(target, color=GREY, linewidth=0.8)
    axes.set(xlabel="time / ps", ylabel="temperature / K", title="Langevin dynamics")
    save(figure, path)


def plot_lammps(path: Path, rows: dict[str, Floats], n_atoms: int) -> None:
    """Total energy of the LAMMPS run."""
    figure, (axes,) = new_figure(5.4, 2.8)
    energies = 1000.0 * (rows["total"] - rows["total"][0]) / n_atoms
    axes.plot(rows["time_ps"], energies, color=BLUE, linewidth=0.8)
    axes.set(xlabel="time / ps", ylabel="energy - first / meV/atom", title="NVE in LAMMPS")
    save(figure, path)


def lammps_thermo(folder: Path) -> dict[str, Floats]:
    """Time, temperature, potential and total energy from LAMMPS' log."""
    rows, reading = [], False
    for line in (folder / "log.lammps").read_text().splitlines():
        words = line.split()
        if words[:1] == ["Step"] or line.startswith("Loop time"):
            reading = words[:1] == ["Step"]
        elif reading and words and words[0].isdigit():
            rows.append([float(word) for word in words])
    _, time, temperature, potential, total = np.array(rows).T
    return {
        "time_ps": time,
        "temperature": temperature,
        "potential": potential,
        "total": total,
    }


def lammps_table(folder: Path, structures: Path) -> str:
    """The first step in LAMMPS against ASE, and what the simulation conserved."""
    atoms = read(structures, "0")
    atoms.calc = PETCalculator(folder / "model.pt")
    lines = (folder / "lammps" / "forces.dump").read_text().splitlines()
    forces = np.array([line.split()[1:] for line in lines[9 : 9 + len(atoms)]], dtype=float)
    rows = lammps_thermo(folder / "lammps")
    slope, spread = drift(rows, len(atoms))
    energy = 1000.0 * abs(rows["potential"][0] - atoms.get_potential_energy()) / len(atoms)
    return table(
        ["LAMMPS", "value"],
        [
            ["energy of the first step, difference from ASE", f"{energy:.1g} meV/atom"],
            [
                "forces of the first step, largest difference from ASE",
                f"{1000.0 * np.abs(forces - atoms.get_forces()).max():.1g} meV/Å",
            ],
            ["NVE, length", f"{rows['time_ps'][-1]:g} ps"],
            ["NVE, slope of the total energy", f"{slope:+.2g} meV/atom/ps"],
            ["NVE, fluctuation about that line", f"{spread:.2g} meV/atom"],
            ["NVE, mean temperature", f"{rows['temperature'].mean():.0f} K"],
        ],
    )


def thermo(folder: Path) -> dict[str, Floats]:
    """Columns of a simulation's thermo.csv."""
    return {k: np.array(v) for k, v in read_columns(folder / "thermo.csv").items()}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, numbers to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def number(value: float) -> str:
    """Three digits, without an exponent where that is readable."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def error_table(errors: dict[str, Any]) -> str:
    """Errors on the test set, in all and per temperature."""
    units = errors["errors"]["units"]
    groups = {"all": errors["errors"]["all"], **errors["errors"]["groups"]}
    rows = [
        [f"{name}, {quantity.replace('_', ' ')}", units[quantity]]
        + [number(found[quantity][key]) for key in ("mae", "rmse", "reference_std")]
        for name, found in groups.items()
        for quantity in ("energy_per_atom", "forces")
    ]
    return table(["test set", "unit", "MAE", "RMSE", "spread of the reference"], rows)


def rotation_table(errors: dict[str, Any]) -> str:
    """Standard deviations over random O(3) operations, with and without the ensemble."""
    titles = {
        "energy_per_atom_std": "energy per atom, standard deviation",
        "forces_std": "force components, standard deviation",
        "torque_per_atom": "net torque per atom",
    }
    rows = []
    for key, title in titles.items():
        found = [errors[name]["rotational_error"][key] for name in ("plain", "model")]
        rows.append([title, found[0]["unit"], *[number(f["rms"]) for f in found]])
    return table(["over random rotations and reflections", "unit", "without", "with ECSE"], rows)


def drift(nve: dict[str, Floats], n_atoms: int) -> tuple[float, float]:
    """Slope of the total energy (meV/atom/ps) and its standard deviation about it (meV/atom)."""
    energies = 1000.0 * nve["total"] / n_atoms
    line = np.polyfit(nve["time_ps"], energies, 1)
    return float(line[0]), float((energies - np.polyval(line, nve["time_ps"])).std())


def mean_and_error(values: Floats, blocks: int = 5) -> tuple[float, float]:
    """Mean of correlated values and its standard error, from the means of a few blocks."""
    means = np.array([block.mean() for block in np.array_split(values, blocks)])
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(blocks))


def dynamics_table(folder: Path, n_atoms: int) -> str:
    """What the two simulations conserved and kept."""
    nve, nvt = thermo(folder / "nve"), thermo(folder / "nvt")
    slope, spread = drift(nve, n_atoms)
    settled = nvt["temperature"][int(SETTLING * len(nvt["temperature"])) :]
    mean, error = mean_and_error(settled)
    rows = [
        ["NVE, length", f"{nve['time_ps'][-1]:g} ps"],
        ["NVE, slope of the total energy", f"{slope:+.2g} meV/atom/ps"],
        ["NVE, fluctuation about that line", f"{spread:.2g} meV/atom"],
        ["NVE, mean temperature", f"{nve['temperature'].mean():.0f} K"],
        ["Langevin, length", f"{nvt['time_ps'][-1]:g} ps"],
        ["Langevin, mean temperature after settling", f"{mean:.0f} ± {error:.0f} K"],
    ]
    return table(["molecular dynamics", "value"], rows)


def model_table(folder: Path, errors: dict[str, Any], facts: dict[str, str]) -> str:
    """What was trained, how long, and on what."""
    metadata = read_metadata(folder / "model.pt")
    training = metadata.training
    rows = {
        "pet_mlip": __version__,
        "torch": metadata.torch_version,
        **facts,
        "training structures": str(training["training_structures"]),
        "training time": f"{training['seconds']:.0f} s, {training['steps']} steps",
        "parameters": str(metadata.n_parameters),
        "cutoff": f"{metadata.cutoff:g} Å",
        "precision": metadata.dtype,
        "frames per atom": "{mean_frames:.2f} on average, {max_frames} at most".format(
            **errors["model"]
        ),
    }
    return table(["model", "value"], [[key, value] for key, value in rows.items()])


def draw(folder: Path, curves: dict[str, Floats], temperature: float) -> None:
    """The pictures that `pet-mlip` itself does not make."""
    n_atoms = len(read(folder / "nve" / "trajectory.xyz", "0"))
    plot_rotation(folder / "rotation.png", curves)
    plot_energies(folder / "nve.png", thermo(folder / "nve"), n_atoms)
    plot_temperature(folder / "nvt.png", thermo(folder / "nvt"), temperature)
    plot_lammps(folder / "lammps.png", lammps_thermo(folder / "lammps"), n_atoms)


def write(
    folder: Path,
    errors: dict[str, Any],
    facts: dict[str, str],
    commands: list[str],
    seconds: dict[str, float],
    structures: Path,
) -> Path:
    """Write report.md, which shows the pictures in the folder; returns its path."""
    n_atoms = len(read(folder / "nve" / "trajectory.xyz", "0"))
    parts = [
        "# Demo: ethanol, from data to molecular dynamics",
        "Every number here was measured by the run that wrote this file.",
        model_table(folder, errors, facts),
        "## Training\n\n![learning curve](run/report/learning_curve.png)",
        "## Errors on structures of other trajectories",
        error_table(errors["model"]),
        "![energies](eval_model/parity_energy_per_atom.png)\n"
        "![forces](eval_model/parity_forces.png)",
        "## Rotational error with and without ECSE",
        "The same weights, evaluated over the ensemble they were trained in and in the coordinate "
        "system of the file alone (`export --symmetrization none`, for which they were not "
        "trained: the comparison shows what the ensemble removes, not how well a model without "
        "it could be trained).",
        rotation_table(errors),
        "![energy of a turned molecule](rotation.png)",
        "## Molecular dynamics from the exported file",
        dynamics_table(folder, n_atoms),
        "![NVE](nve.png)\n![Langevin](nvt.png)",
        "## The same file in LAMMPS",
        lammps_table(folder, structures),
        "![NVE in LAMMPS](lammps.png)",
        "## What was run\n\n```\n" + "\n".join(commands) + "\n```",
        table(["step", "seconds"], [[name, f"{time:.0f}"] for name, time in seconds.items()]),
    ]
    report = folder / "report.md"
    report.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return report
