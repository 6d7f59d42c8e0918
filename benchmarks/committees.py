"""One model that knows its uncertainty beside a committee of several, of the same training each.

    python -m benchmarks.committees configs/acac.yaml --data DIR --time 00:06:00 -o committees

Trains four models that differ in their seed, one after the other (what is finished in the folder is
not trained again), and with ``--equal`` one more, for as long as all of these together. Prints for
each test set, of the first model, of the committee, and of that one: the rank correlation
(Spearman) of uncertainties and errors, of structures' energies, of structures' root mean square
forces, and of forces on atoms; the part of energies and of force components within one standard
deviation; and the root mean square error of forces.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.stats import spearmanr

from benchmarks.command import check_no_file, make_app, run_app
from pet_mlip import PETCalculator
from pet_mlip.config import Config, load_config
from pet_mlip.data.structure import Structure
from pet_mlip.errors import UserError
from pet_mlip.train import run_training
from pet_mlip.train.setup import load_files

NAMES = ("energy", "forces", "energy_uncertainty", "forces_uncertainty")
COLUMNS = ("energies", "structures", "atoms", "energies in 1 sigma", "forces in 1 sigma", "meV/Å")
app = make_app()


@app.command()
def main(
    config: Annotated[Path, typer.Argument(help="Configuration of a training (YAML).")],
    data: Annotated[str, typer.Option(help="data.root of it.")],
    time: Annotated[str, typer.Option(help="training.max_time of each.")] = "00:06:00",
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("committees"),
    members: Annotated[int, typer.Option(min=2, help="Models of the committee.")] = 4,
    equal: Annotated[
        bool, typer.Option("--equal", help="Train one model for the time of all of them, too.")
    ] = False,
    every: Annotated[int, typer.Option(min=1, help="Of so many test structures one.")] = 1,
    overrides: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    """Train, and compare."""
    check_no_file(output)
    given = [f"data.root={data}", f"training.max_time={time}", *(overrides or [])]
    chosen, longer = load_config(config, given), None
    if equal:
        if chosen.training.max_time is None:
            raise UserError("--equal needs training.max_time: leave out --set training.max_time.")
        seconds = members * chosen.training.max_time
        longer = load_config(config, [*given, f"training.max_time={seconds}"])
    paths = [
        trained(load_config(config, [*given, f"training.seed={seed}"]), output / f"seed{seed}")
        for seed in range(members)
    ]
    contestants = {
        "one model": PETCalculator(paths[0]),
        f"committee of {members}": PETCalculator(paths),
    }
    if longer is not None:
        folder = output / f"one_{longer.training.max_time:g}s"
        contestants["one, as long"] = PETCalculator(trained(longer, folder))
    print(f"{'set':12}{'':16}" + "".join(f"{name:>22}" for name in COLUMNS))
    for name, structures in read_tests(chosen).items():
        for title, calculator in contestants.items():
            numbers = compare(calculator, structures[::every])
            print(f"{name:12}{title:16}" + "".join(f"{value:22.3g}" for value in numbers))


def trained(config: Config, folder: Path) -> Path:
    """Train in a folder, unless that is done, and return the exported model."""
    if not (folder / "report" / "errors.json").is_file():
        run_training(config, folder)
    return folder / "model.pt"


def read_tests(config: Config) -> dict[str, list[Structure]]:
    """All test structures of a configuration."""
    return {name: list(load_files(config, files)) for name, files in config.data.test.items()}


def compare(calculator: PETCalculator, structures: Sequence[Structure]) -> tuple[float, ...]:
    """Return the numbers of one line."""
    found = calculator.compute_batch([s.to_atoms() for s in structures], NAMES)
    energy = np.array([f["energy"] - s.energy for f, s in zip(found, structures, strict=True)])
    of_energy = np.array([f["energy_uncertainty"] for f in found])
    error = [f["forces"] - s.forces for f, s in zip(found, structures, strict=True)]
    sigma = [f["forces_uncertainty"] for f in found]
    per_structure = (
        [np.sqrt(np.mean(e**2)) for e in error],
        [np.sqrt(np.mean(s**2)) for s in sigma],
    )
    errors, sigmas = np.concatenate(error), np.concatenate(sigma)
    return (
        rank(np.abs(energy), of_energy),
        rank(*per_structure),
        rank(np.linalg.norm(errors, axis=1), sigmas),
        float(np.mean(np.abs(energy) < of_energy)),
        float(np.mean(np.abs(errors) < sigmas[:, None])),
        1000 * float(np.sqrt(np.mean(errors**2))),
    )


def rank(errors: Sequence[float], uncertainties: Sequence[float]) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(errors, uncertainties).statistic)


if __name__ == "__main__":
    run_app(app)
