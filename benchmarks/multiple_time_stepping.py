"""Energy conservation and speed of multiple time stepping (docs/multiple_time_stepping.md).

    python benchmarks/multiple_time_stepping.py MODEL STRUCTURE [--inner 0.5] [--time 2]

NVE at 300 K from the same start (equilibrated with a thermostat): velocity Verlet with the whole
model, and r-RESPA with 2, 4, ... steps of its plain part for each evaluation of the whole. Prints
for each the standard deviation of the total energy about its linear trend, that trend, the mean
temperature, and CPU seconds of velocity Verlet over its own.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from ase import Atoms, units
from ase.io import read
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet

from pet_mlip import PETCalculator
from pet_mlip.ase.md import MDSettings, Simulation
from pet_mlip.ase.respa import Respa


def integrator(atoms: Atoms, inner: float, k: int) -> MolecularDynamics:
    """Velocity Verlet for k = 1, else r-RESPA with k inner steps; times in fs."""
    if k == 1:
        return VelocityVerlet(atoms, inner * units.fs)
    return Respa(atoms, k * inner * units.fs, k)


def measure(
    start: Atoms, calculator: PETCalculator, inner: float, k: int, length: float
) -> tuple[float, float, float, float]:
    """Spread and slope of the energy in meV per atom (and ps), mean temperature, CPU seconds."""
    atoms = start.copy()
    atoms.calc = calculator.clone()
    dynamics = integrator(atoms, inner, k)
    total, temperature = [], []
    dynamics.attach(lambda: total.append(atoms.get_total_energy()))
    dynamics.attach(lambda: temperature.append(atoms.get_temperature()))
    began = time.process_time()
    dynamics.run(round(1000 * length / (k * inner)))
    seconds = time.process_time() - began
    times = np.linspace(0.0, length, len(total))
    energy = 1000.0 * np.array(total) / len(atoms)
    slope, constant = np.polyfit(times, energy, 1)
    spread = np.std(energy - slope * times - constant)
    return spread, slope, np.mean(temperature), seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("structure")
    parser.add_argument("--inner", type=float, default=0.5, help="time step of the plain part, fs")
    parser.add_argument("--time", type=float, default=2.0, help="length of each simulation, ps")
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--equilibration", type=float, default=0.5, help="ps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    calculator = PETCalculator(options.model, device="cpu", dtype=options.dtype)
    atoms = read(options.structure)
    atoms.calc = calculator
    settings = MDSettings("nvt", 300.0, timestep=0.5, damping=50.0, seed=1)
    Simulation(atoms, settings).advance(round(1000 * options.equilibration / 0.5))
    forces = atoms.get_forces()
    correction = calculator.clone("correction").get_forces(atoms)
    print(f"mean frames {calculator.info['mean_frames']:.1f}, root mean square force ", end="")
    print(f"{np.sqrt(np.mean(forces**2)):.3f} eV/Å, of the correction ", end="")
    print(f"{np.sqrt(np.mean(correction**2)):.4f} eV/Å")
    print("| k | whole step, fs | energy spread, meV/atom | drift, meV/atom/ps | T, K | speed |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    reference = None
    for k in options.steps:
        spread, slope, temperature, seconds = measure(
            atoms, calculator, options.inner, k, options.time
        )
        reference = reference or seconds
        print(
            f"| {k} | {k * options.inner:g} | {spread:.4f} | {slope:+.4f} | {temperature:.0f} | "
            f"{reference / seconds:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
