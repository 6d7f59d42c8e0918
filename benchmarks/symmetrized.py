"""Invariance of one model by this package's averages and by metatomic's, in one run.

metatrain builds a PET with random weights and exports it for metatomic's SymmetrizedCalculator
(its default is l_max = 3); the same weights are converted for `PETCalculator`. Both sides run in
float64 and in turn, energy and forces. For each structure and method:

- evaluations of the model in one call: of whole structures for metatomic and `quadrature`, of
  receptive fields (parts of the structure, or all of it) for `structure`;
- what they cost in evaluations of the whole structure;
- processor time relative to metatomic's default, the neighbour list included;
- rotational error: standard deviation over random O(3) operations of the energy per atom, and of
  the force components turned back (root mean square over components). The evaluations and their
  cost are the largest that any of these orientations needed.

Random weights depend on the orientation more than trained ones do: compare errors with each other,
and with those of the model as it is, not with those of a published model.

    python benchmarks/symmetrized.py [--operations 3] [--width 32]

Needs metatrain and metatomic-ase beside this package.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from metatomic_ase import MetatomicCalculator, SymmetrizedCalculator
from metatrain.pet import PET
from metatrain.utils.architectures import get_default_hypers
from metatrain.utils.data import DatasetInfo
from metatrain.utils.data.target_info import get_energy_target_info

from pet_mlip import PETCalculator
from pet_mlip.ase.symmetrize.modes import Symmetrization
from pet_mlip.convert import convert, write_converted
from pet_mlip.evaluate.equivariance import random_operations, transformed
from pet_mlip.export import load_model

ELEMENTS = [1, 4, 6, 8, 13, 14]
REFERENCE = "metatomic, l_max = 3"
OURS = (
    "none",
    "structure",
    "quadrature:1",
    "quadrature:3",
    "quadrature:5",
)
L_MAX = (3, 5)
REPEATS = 3


class Counting(MetatomicCalculator):
    """Counts the structures that the model evaluates."""

    evaluations = 0

    def calculate(self, atoms: Atoms, properties: list[str], changes: list[str]) -> None:
        """One structure, for ASE."""
        self.evaluations += 1
        super().calculate(atoms, properties, changes)

    def compute_energy(self, atoms: Any, *args: Any, **options: Any) -> Any:
        """One or several structures."""
        self.evaluations += len(atoms) if isinstance(atoms, list) else 1
        return super().compute_energy(atoms, *args, **options)


@dataclass
class Method:
    """A calculator and what was seen of it on one structure."""

    calculator: Calculator
    evaluations: int = 0
    relative: float = 0.0
    seconds: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    forces: list[np.ndarray] = field(default_factory=list)

    def call(self, atoms: Atoms) -> float:
        """Processor seconds of energy and forces, nothing of an earlier call reused."""
        self.calculator.reset()
        start = time.process_time()
        self.calculator.calculate(atoms, ["energy", "forces"], all_changes)
        return time.process_time() - start

    def see(self, atoms: Atoms, operation: np.ndarray) -> None:
        """Evaluate a turned copy; energy per atom and forces are kept, turned back."""
        turned = transformed(atoms, operation)
        if isinstance(self.calculator, PETCalculator):
            cost = self.calculator.cost(turned)
            evaluations, relative = cost.evaluations, cost.relative
            self.call(turned)
        else:
            base = self.calculator.base_calculator
            base.evaluations = 0
            self.call(turned)
            evaluations, relative = base.evaluations, float(base.evaluations)
        self.evaluations = max(self.evaluations, evaluations)
        self.relative = max(self.relative, relative)
        self.energies.append(float(self.calculator.results["energy"]) / len(atoms))
        self.forces.append(np.asarray(self.calculator.results["forces"]) @ operation)


def structures() -> dict[str, Atoms]:
    """Crystals as they are, with all their symmetry, and one without any."""
    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.05, seed=1)
    rattled = bulk("Si", cubic=True)
    rattled.rattle(0.05, seed=1)
    return {
        "ethanol, rattled": ethanol,
        "silicon, 2 atoms": bulk("Si"),
        "silicon, 8 atoms": bulk("Si", cubic=True),
        "wurtzite BeO, 4 atoms": bulk("BeO", "wurtzite", a=2.698, c=4.380, u=0.378),
        "fcc Al, 1 atom": bulk("Al"),
        "fcc Al, 4 atoms": bulk("Al", cubic=True),
        "silicon, 8 atoms, rattled": rattled,
    }


def make_models(width: int, folder: Path) -> tuple[Path, Path]:
    """The same random weights for metatomic and for this package, both in float64."""
    hypers = copy.deepcopy(get_default_hypers("pet")["model"])
    hypers |= {"d_pet": width, "d_node": width, "d_head": width, "d_feedforward": 2 * width}
    hypers["num_heads"] = 4
    target = get_energy_target_info("energy", {"quantity": "energy", "unit": "eV"})
    info = DatasetInfo(length_unit="Angstrom", atomic_types=ELEMENTS, targets={"energy": target})
    torch.manual_seed(0)
    model = PET(hypers, info).to(torch.float64).eval()
    checkpoint, theirs, ours = (folder / name for name in ("pet.ckpt", "mtt.pt", "ours.pt"))
    torch.save(model.get_checkpoint(), checkpoint)
    write_converted(ours, convert(checkpoint), "float64")
    model.export().save(str(theirs))
    return theirs, ours


def make_methods(theirs: Path, ours: Path) -> dict[str, Method]:
    """Every calculator by its name in the table; metatomic's default comes first."""
    methods = {}
    for l_max in L_MAX:
        base = Counting(str(theirs), device="cpu", neighbor_skin=0.0)
        calculator = SymmetrizedCalculator(base, l_max=l_max, batch_size=84)
        methods[f"metatomic, l_max = {l_max}"] = Method(calculator)
    loaded = load_model(str(ours), device="cpu")
    for name in OURS:
        calculator = PETCalculator(loaded, skin=0, symmetrization=Symmetrization.parse(name))
        methods[name] = Method(calculator)
    return methods


def compare(atoms: Atoms, methods: dict[str, Method], operations: np.ndarray) -> None:
    """Evaluate a structure with every method."""
    for method in methods.values():
        # The first calls compile.
        method.call(atoms)
        for operation in operations:
            method.see(atoms, operation)
    for _ in range(REPEATS):
        for method in methods.values():
            method.seconds.append(method.call(atoms))


def print_rows(name: str, methods: dict[str, Method]) -> None:
    """The structure's part of the table."""
    reference = methods[REFERENCE].seconds
    for title, m in methods.items():
        ratio = statistics.median(a / b for a, b in zip(m.seconds, reference, strict=True))
        energy = 1000.0 * float(np.std(m.energies))
        forces = 1000.0 * float(np.sqrt(np.stack(m.forces).var(axis=0).mean()))
        print(
            f"| {name} | {title} | {m.evaluations} | {m.relative:.1f} | {ratio:.2f} | "
            f"{energy:.1e} | {forces:.1e} |",
            flush=True,
        )
        name = ""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=3)
    parser.add_argument("--width", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    operations = random_operations(options.operations, np.random.default_rng(0))
    head = "| structure | method | evaluations | cost | time | energy, meV/atom | forces, meV/Å |"
    print(head + "\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = make_models(options.width, Path(folder))
        for name, atoms in structures().items():
            methods = make_methods(theirs, ours)
            compare(atoms, methods, operations)
            print_rows(name, methods)


if __name__ == "__main__":
    main()
