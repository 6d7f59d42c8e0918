"""`pet-mlip md`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_mlip.cli.common import (
    ChunkSize,
    Device,
    Dtype,
    load_calculator,
    progress_bar,
    stderr,
    stdout,
)
from pet_mlip.errors import UserError
from pet_mlip.files import check_writable

if TYPE_CHECKING:
    from ase import Atoms

    from pet_mlip.ase.recording import Recorder

INTERRUPTED = 130

# What defines a simulation; None where nothing is asked for, so that --restart can tell.
Ensemble = Annotated[
    str | None,
    typer.Option(
        help="nve (velocity Verlet), nvt (Langevin) or npt (Langevin, barostat). [default: nvt]"
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(help="K; of the initial velocities and the thermostat. [default: 300]"),
]
Pressure = Annotated[float | None, typer.Option(help="bar, for npt. [default: 1.01325]")]
Timestep = Annotated[float | None, typer.Option(help="fs. [default: 0.5]")]
Damping = Annotated[
    float | None, typer.Option(help="Time constant of the thermostat in fs. [default: 100]")
]
PressureDamping = Annotated[
    float | None, typer.Option(help="Time constant of the barostat in fs. [default: 1000]")
]
Flexible = Annotated[
    bool | None,
    typer.Option("--flexible/--isotropic", help="Whether npt varies the shape of the cell, too."),
]
Seed = Annotated[int | None, typer.Option(help="Of velocities and thermostat. [default: 0]")]


def md(
    model: Annotated[Path, typer.Argument(help="An exported model (.pt).")],
    structure: Annotated[
        str,
        typer.Argument(help="First structure, anything ASE reads; FILE@5: takes frame 5."),
    ],
    steps: Annotated[int, typer.Option(min=0, help="Steps in all, those before --restart too.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for all results.")] = Path(
        "md"
    ),
    ensemble: Ensemble = None,
    temperature: Temperature = None,
    pressure: Pressure = None,
    timestep: Timestep = None,
    damping: Damping = None,
    pressure_damping: PressureDamping = None,
    flexible: Flexible = None,
    seed: Seed = None,
    interval: Annotated[
        int, typer.Option(min=1, help="Steps between frames and lines of the log.")
    ] = 100,
    save_interval: Annotated[int, typer.Option(min=1, help="Steps between saved states.")] = 1000,
    restart: Annotated[
        bool, typer.Option("--restart", help="Continue the simulation in the output folder.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the simulation in the output folder first.")
    ] = False,
    symmetrization: Annotated[
        str | None,
        typer.Option(
            help="For models that are not invariant: none, structure (exact), "
            "quadrature[:DEGREE], or random[:SEED], one random orientation for each step, which "
            "costs nothing and needs a thermostat. By default what the model's file asks for."
        ),
    ] = None,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Write the uncertainties of energies and forces into the frames of the "
            "trajectory, of a model that knows these; each takes as long as several steps.",
        ),
    ] = False,
    device: Device = "auto",
    dtype: Dtype = None,
    chunk_size: ChunkSize = None,
) -> None:
    """Molecular dynamics of a structure.

    Writes trajectory.xyz (extended XYZ with momenta, energies, forces), thermo.csv (eV, K, bar,
    Å^3, ps) and the state to continue from. Ctrl-C stops after the current step; the same command
    with --restart continues as if nothing had happened. Momenta in the structure are kept.
    """
    from pet_mlip.ase.md import MDSettings, Simulation
    from pet_mlip.ase.recording import Recorder, check_same

    asked: dict[str, Any] = {
        "ensemble": ensemble,
        "temperature": temperature,
        "pressure": pressure,
        "timestep": timestep,
        "damping": damping,
        "pressure_damping": pressure_damping,
        "flexible": flexible,
        "seed": seed,
    }
    # What may be wrong comes before an old simulation is deleted.
    if restart:
        settings = check_same(output, asked)
    else:
        settings = MDSettings(**{k: v for k, v in asked.items() if v is not None})
    atoms = read_first(structure)
    atoms.calc = load_calculator(model, device, dtype, chunk_size, symmetrization)
    if uncertainty:
        atoms.calc.uncertainties.require()
    if not restart:
        make_folder(output, overwrite)
    simulation = Simulation(atoms, settings)
    with Recorder(output, simulation, interval, uncertainty) as recorder:
        if restart:
            recorder.resume()
        else:
            recorder.start()
        finished = run(recorder, steps, save_interval)
    if not finished:
        stderr().print(f"Interrupted after step {simulation.step}; continue with --restart.")
        raise typer.Exit(INTERRUPTED)
    stdout().print(f"{simulation.step} steps done: {output}/")


def run(recorder: Recorder, steps: int, save_interval: int) -> bool:
    """Simulate up to a number of steps; False if interrupted before. The state is saved."""
    simulation = recorder.simulation
    with progress_bar("state") as progress, stop_on_signal() as stop:
        task = progress.add_task(
            simulation.settings.ensemble, total=steps, completed=simulation.step, state=""
        )
        while simulation.step < steps and not stop.is_set():
            simulation.advance(1)
            if simulation.step % recorder.interval == 0:
                line = recorder.record()
                state = f"{line['temperature']:.0f} K  {line['total']:.4f} eV"
                progress.update(task, state=state)
            if simulation.step % save_interval == 0:
                recorder.save()
            progress.update(task, completed=simulation.step)
        recorder.save()
    return simulation.step >= steps


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set instead of ending the program within a step."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def read_first(name: str) -> Atoms:
    """The first of the structures that a name stands for, with its momenta and constraints."""
    from pet_mlip.data.reading import read_atoms

    _, atoms = next(read_atoms(name))
    atoms.calc = None
    return atoms


def make_folder(folder: Path, overwrite: bool) -> None:
    """Create the output folder.

    Raises:
        UserError: It holds a simulation, and `overwrite` is not given.
    """
    from pet_mlip.ase.recording import SETTINGS, STATE, THERMO, TRAJECTORY

    names = [name for name in (SETTINGS, STATE, THERMO, TRAJECTORY) if (folder / name).exists()]
    if names and not overwrite:
        raise UserError(
            f"{folder} holds a simulation already: continue it with --restart, replace it with "
            "--overwrite, or choose another --output."
        )
    if folder.is_file():
        raise UserError(f"--output {folder} is a file; give a folder.")
    for name in names:
        (folder / name).unlink()
    check_writable(folder)
