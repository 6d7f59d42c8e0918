"""Hessians as differences of forces: how exact, by the displacement, and how fast.

    python -m benchmarks.hessians [--model organic-xtb]

Prints the largest difference from Richardson's extrapolation of two displacements, over the largest
element, in float64; and the time of `get_hessian` over that of one force evaluation with the file's
precision, medians of five, one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
import typer
from ase.build import molecule

from benchmarks.command import make_app, run_app
from pet_mlip import PETCalculator
from pet_mlip.ase import hessian

STEPS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6)
app = make_app()


@app.command()
def main(
    model: Annotated[str, typer.Option(help="File, or name of weights.")] = "organic-xtb",
    name: Annotated[str, typer.Option(help="Molecule of ase.build.molecule.")] = "CH3CH2OH",
) -> None:
    """Measure, and print."""
    torch.set_num_threads(1)
    atoms = molecule(name)
    atoms.rattle(0.02, seed=1)
    calculator = PETCalculator(model)
    found = {step: at_step(calculator, atoms, step) for step in STEPS}
    # Errors are of order h^2.
    best = (9 * found[1e-4] - found[3e-4]) / 8
    for step, value in found.items():
        print(f"h = {step:g} Å: {np.abs(value - best).max() / np.abs(best).max():.1e}")
    atoms.calc = calculator
    forces = seconds(lambda: (calculator.reset(), atoms.get_forces()))
    whole = seconds(lambda: calculator.get_hessian(atoms))
    print(f"{len(atoms)} atoms: {whole / forces:.1f} force evaluations")


def at_step(calculator: PETCalculator, atoms: object, step: float) -> np.ndarray:
    """The Hessian with another displacement."""
    usual = hessian.STEP
    hessian.STEP = step
    try:
        return calculator.get_hessian(atoms)
    finally:
        hessian.STEP = usual


def seconds(call: Callable[[], object]) -> float:
    """The median time of five calls, after one that does not count."""
    call()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    run_app(app)
