"""The molecular dynamics of a round: several simulations side by side, stopped where uncertain."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import as_completed
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.ase.md import MDSettings, Simulation
from pet_mlip.ase.recording import STATE, TRAJECTORY, Recorder
from pet_mlip.errors import UserError
from pet_mlip.export.archive import choose_device
from pet_mlip.learn import lammps
from pet_mlip.learn.config import LearnConfig
from pet_mlip.learn.files import read_structures
from pet_mlip.learn.job import Job, Outcome, has_ended, read_outcome, why_stop, write_outcome
from pet_mlip.learn.log import LOG
from pet_mlip.learn.workers import count_cores, local_workers

YOUNG = 2.0
"""Times what a model is uncertain by of structures that it knows."""
SAVE = 20
"""Looks between two saved states."""


def jobs_of_round(
    config: LearnConfig, start: Sequence[Atoms], number: int, folder: Path, stop_above: float
) -> list[Job]:
    """List the simulations of a round.

    Args:
        config: Of the learning.
        start: What simulations begin with.
        number: Of the round, which makes velocities other ones than those of other rounds.
        folder: Of the round.
        stop_above: Uncertainty of a force in eV/Å at which they are stopped.
    """
    wanted = config.simulation
    pressures = wanted.pressures if wanted.ensemble == "npt" else [0.0]
    states = [
        (t, p) for t in wanted.temperatures for p in pressures for _ in range(wanted.replicas)
    ]
    jobs = []
    for k, (temperature, pressure) in enumerate(states):
        settings = MDSettings(
            ensemble=wanted.ensemble,
            temperature=temperature,
            pressure=pressure,
            timestep=wanted.timestep,
            damping=wanted.damping,
            pressure_damping=wanted.pressure_damping,
            # LAMMPS wants seeds that are positive and not too large.
            seed=1 + int(np.random.default_rng([config.seed, number, k]).integers(10**8)),
        )
        jobs.append(
            Job(
                folder / "simulations" / f"{k:02d}",
                folder / "run" / "model.pt",
                start[k % len(start)],
                settings,
                wanted.steps,
                wanted.interval,
                stop_above,
                config.reference.max_force,
                wanted.device,
            )
        )
    return jobs


def level_to_stop(
    config: LearnConfig, model: Path, known: Sequence[Atoms], correction: float
) -> float:
    """Find the uncertainty, as the model states it, at which a round's simulations are stopped.

    A young model is more uncertain than `selection.stop_above` of everything. It may then be so
    uncertain as `YOUNG` times the median of the largest uncertainties of structures that it knows,
    so that simulations find something else than where they began.

    Args:
        config: Of the learning.
        model: File of the round's model.
        known: Validation structures.
        correction: By how much errors exceed uncertainties.
    """
    names = ["forces_uncertainty"]
    found = PETCalculator(model, device=config.simulation.device).compute_batch(known, names)
    worst = [float(of_one[names[0]].max()) for of_one in found]
    return max(config.selection.stop_above / correction, YOUNG * float(np.median(worst)))


def simulate_all(config: LearnConfig, jobs: Sequence[Job], whole: Path) -> list[Outcome]:
    """Run simulations side by side; those that have ended before are not repeated.

    Args:
        config: Of the learning.
        jobs: What to run.
        whole: Folder of the learning.

    Raises:
        UserError: A process failed for another reason than what it simulates.
    """
    missing = [job for job in jobs if not has_ended(job.folder)]
    if missing:
        wanted = config.simulation
        LOG.info("%d simulations of %d steps run.", len(missing), wanted.steps)
        run = lammps.run_job if wanted.engine == "lammps" else run_job
        alone = wanted.processes == "auto" and choose_device(wanted.device).type != "cpu"
        processes = 1 if alone else min(count_cores(wanted.processes), len(missing))
        with local_workers(processes, whole) as workers:
            tasks = {workers.submit(run, job): job for job in missing}
            for future in as_completed(tasks):
                try:
                    future.result()
                except UserError:
                    raise
                except Exception as error:
                    raise UserError(
                        f"The simulation in {tasks[future].folder} failed: "
                        f"{type(error).__name__}: {error}"
                    ) from error
    return [read_outcome(job.folder) for job in jobs]


def run_job(job: Job) -> None:
    """Run one simulation in ASE, from its last saved state if there is one."""
    torch.set_num_threads(1)
    job.folder.mkdir(parents=True, exist_ok=True)
    atoms = job.start.copy()
    atoms.calc = PETCalculator(job.model, device=job.device, uncertainty="forces")
    simulation = Simulation(atoms, job.settings)
    with Recorder(job.folder, simulation, job.interval, uncertainty=True) as recorder:
        if (job.folder / STATE).exists():
            recorder.resume()
        else:
            recorder.start()
        stopped = why_stop(atoms, job.stop_above, job.max_force)
        while stopped is None and simulation.step < job.steps:
            try:
                simulation.advance(min(job.interval, job.steps - simulation.step))
            except UserError as error:  # positions that are not finite, atoms that coincide
                stopped = str(error)
                break
            recorder.record()
            stopped = why_stop(atoms, job.stop_above, job.max_force)
            if simulation.step % (SAVE * job.interval) == 0:
                recorder.save()
    write_outcome(job.folder, Outcome(simulation.step, stopped))


def read_looks(job: Job) -> list[Atoms]:
    """Read the structures of a simulation that were looked at, with what the model said of them."""
    return read_structures(job.folder / TRAJECTORY)
