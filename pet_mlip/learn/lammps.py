"""A simulation of a round in LAMMPS: input file, run, and the structures that were looked at."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread
from ase.io.lammpsdata import write_lammps_data

from pet_mlip.ase.recording import TRAJECTORY
from pet_mlip.errors import UserError
from pet_mlip.lammps.executables import find_executable
from pet_mlip.lammps.launch import command_line, environment, find_plugin
from pet_mlip.learn.files import write_structures
from pet_mlip.learn.job import Job, Outcome, why_stop, write_outcome
from pet_mlip.learn.workers import run_program

VACUUM = 5.0
"""Around what has no cell, in Å; LAMMPS shrinks the box itself."""
DATA, INPUT, DUMP, LOG, SCREEN = "start.data", "in.lammps", "looks.dump", "log.lammps", "screen.txt"


def check_lammps() -> None:
    """Find out before any work whether there is a LAMMPS with the pair style.

    Raises:
        UserError: There is none.
    """
    find_plugin(find_executable(None))


def run_job(job: Job) -> None:
    """Run one simulation in LAMMPS on one core, from its beginning.

    Raises:
        UserError: LAMMPS does not start.
    """
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    elements = sorted(set(job.start.get_chemical_symbols()))
    _write_start(job, elements)
    (job.folder / INPUT).write_text("\n".join(_commands(job, elements)) + "\n")
    executable = find_executable(None)
    words = command_line(executable, ["-in", INPUT, "-log", LOG])
    with open(job.folder / SCREEN, "w") as screen:
        code = run_program(
            words,
            env=environment(executable, find_plugin(executable)),
            cwd=job.folder,
            stdout=screen,
            stderr=subprocess.STDOUT,
        )
    looks, stopped = [], None
    for atoms in _read_dump(job):
        looks.append(atoms)
        stopped = why_stop(atoms, job.stop_above, job.max_force)
        if stopped is not None:
            break
    if stopped is None and code != 0:
        stopped = f"LAMMPS ended: {_complaint(job.folder)}"
        if not looks:
            raise UserError(f"{job.folder}: {stopped}")
    write_structures(job.folder / TRAJECTORY, looks)
    write_outcome(job.folder, Outcome((len(looks) - 1) * job.interval, stopped))


def _write_start(job: Job, elements: list[str]) -> None:
    atoms = job.start.copy()
    if atoms.cell.rank < 3:
        if atoms.pbc.any():
            raise UserError("A periodic structure needs three cell vectors in LAMMPS.")
        atoms.center(vacuum=VACUUM)
    tilted = np.abs(atoms.cell.cellpar()[3:] - 90.0) > 1e-6
    if tilted.any() and not atoms.pbc.all():
        raise UserError(
            "LAMMPS wants right angles where a structure is not periodic in all directions; use "
            "simulation.engine: ase."
        )
    write_lammps_data(
        job.folder / DATA, atoms, specorder=elements, masses=True, atom_style="atomic"
    )


def _commands(job: Job, elements: list[str]) -> Iterator[str]:
    """The lines of the input file."""
    settings, every = job.settings, job.interval
    temperature, damping = settings.temperature, settings.damping / 1000
    molecule = not job.start.pbc.any()
    yield "units metal"
    yield "atom_style atomic"
    yield "boundary " + " ".join("p" if periodic else "s" for periodic in job.start.pbc)
    yield f"read_data {DATA}"
    yield "pair_style pet"
    yield f'pair_coeff * * "{job.model.resolve()}" {" ".join(elements)}'
    yield "neighbor 1.0 bin"
    yield f"timestep {settings.timestep / 1000}"
    yield (
        f"velocity all create {temperature} {settings.seed} mom yes "
        f"rot {'yes' if molecule else 'no'} loop geom"
    )
    yield "fix f all store/force"  # before a thermostat adds to them
    if settings.ensemble == "npt":
        pressure = settings.pressure
        yield (
            f"fix move all npt temp {temperature} {temperature} {damping} "
            f"iso {pressure} {pressure} {settings.pressure_damping / 1000}"
        )
    else:
        yield "fix move all nve"
    if settings.ensemble == "nvt":
        seed = settings.seed
        yield f"fix heat all langevin {temperature} {temperature} {damping} {seed} zero yes"
    yield f"fix u all pair {every} pet energy_uncertainty 1 force_uncertainty 1"
    yield "compute e all pe/atom"
    yield f"dump looks all custom {every} {DUMP} id element xu yu zu f_f[*] c_e f_u[*]"
    names = " ".join(elements)
    yield f"dump_modify looks sort id element {names} format float %.12g flush yes"
    yield "compute worst all reduce max f_u[2]"
    yield "variable worst equal c_worst"
    yield f"fix stop all halt {every} v_worst > {job.stop_above} error soft"
    yield f"thermo {every}"
    yield f"run {job.steps}"


def _read_dump(job: Job) -> Iterator[Atoms]:
    """Structures as the model saw them, in LAMMPS' orientation, with what it said of them."""
    path = job.folder / DUMP
    if not path.is_file():
        return
    for k, read in enumerate(iread(path, ":", format="lammps-dump-text")):
        start = job.start
        has_cell = start.cell.rank == 3
        atoms = Atoms(read.numbers, read.positions, pbc=start.pbc)
        if has_cell:
            # Where it is not periodic LAMMPS has shrunk the box.
            cell = read.cell.array if start.pbc.all() else start.cell.array
            atoms.set_cell(cell)
        atoms.info.update(start.info, step=k * job.interval)
        atoms.arrays["energies_uncertainty"] = read.arrays["f_u[1]"]
        atoms.arrays["forces_uncertainty"] = read.arrays["f_u[2]"]
        forces = np.column_stack([read.arrays[f"f_f[{k}]"] for k in (1, 2, 3)])
        energy = float(read.arrays["c_e"].sum())
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        yield atoms


def _complaint(folder: Path) -> str:
    """What LAMMPS said at last."""
    lines = (folder / SCREEN).read_text(errors="replace").splitlines()
    wrong = [line for line in lines if "ERROR" in line]
    return " ".join((wrong or lines)[-1:]).strip()
