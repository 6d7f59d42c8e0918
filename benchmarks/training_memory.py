"""Peak memory of training steps, against the estimate of pet_mlip.train.memory.

Each line is a process of its own: resident memory at its peak, less that before the step.

    python benchmarks/training_memory.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from ase import Atoms
from ase.build import bulk, molecule

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse.frames import single_frames
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.ecse.training import random_rotations
from pet_mlip.engine.derivatives import predict
from pet_mlip.engine.potential import Potential
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.train.memory import MemoryBudget

SMALL = {"d_pet": 32, "d_node": 32, "d_head": 32, "d_feedforward": 64, "num_heads": 4}
FEEDFORWARD = {
    "featurizer_type": "feedforward",
    "transformer_type": "PreLN",
    "normalization": "RMSNorm",
    "activation": "SwiGLU",
}
LARGE = {"d_pet": 256, "d_node": 512, "d_head": 256, "d_feedforward": 512}
CASES = [
    ("ethanol", 64, "closest_pairs", {}),
    ("ethanol", 64, "none", {}),
    ("ethanol", 64, "closest_pairs", FEEDFORWARD),
    ("ethanol", 64, "closest_pairs", {"num_gnn_layers": 1}),
    ("ethanol", 32, "closest_pairs", LARGE),
    ("silicon", 8, "closest_pairs", {}),
    ("silicon", 8, "closest_pairs", FEEDFORWARD),
    ("copper", 4, "none", {}),
    ("copper", 8, "closest_pairs", SMALL),
    ("copper", 16, "closest_pairs", {}),
]


def structures(name: str, count: int) -> list[Atoms]:
    """Rattled copies."""
    found = []
    for seed in range(count):
        atoms = {
            "ethanol": lambda: molecule("CH3CH2OH"),
            "silicon": lambda: bulk("Si", cubic=True) * (2, 1, 1),
            "copper": lambda: bulk("Cu", cubic=True) * (2, 2, 1),
        }[name]()
        atoms.rattle(0.05, seed=seed)
        found.append(atoms)
    return found


def high_water() -> int:
    """Largest resident memory of this process so far in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


def measure(name: str, count: int, ensemble: str, hypers: dict):
    """Estimated and measured bytes."""
    atoms = structures(name, count)
    species = sorted({int(z) for a in atoms for z in a.numbers})
    train = "structure" if ensemble == "none" else "full"
    symmetrization = SymmetrizationHypers(train=train, ensemble=ensemble)
    potential = Potential(species, PETHypers(**hypers), symmetrization)
    batch = batch_from_atoms(atoms, potential.cutoff)
    budget = MemoryBudget(potential, 1.0, torch.device("cpu"))
    estimate = budget.bytes_of(sum(budget.tokens(batch)))
    frames = None
    if ensemble == "none":
        frames = single_frames(random_rotations(torch.arange(count))[batch.structure])
    before = high_water()
    found = predict(potential, batch.graph, batch.structure, count, frames, training=True)
    (found.energy.square().sum() + found.forces.square().sum()).backward()
    return estimate, high_water() - before


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        print(json.dumps(measure(*json.loads(sys.argv[1]))))
        return
    print("| structures | ensemble | network | estimate, MB | measured, MB | ratio |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for case in CASES:
        name, count, ensemble, hypers = case
        command = [sys.executable, __file__, json.dumps(case)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        estimate, measured = (value / 1e6 for value in json.loads(found))
        network = ", ".join(f"{k} {v}" for k, v in hypers.items()) or "default"
        print(
            f"| {count} {name} | {ensemble} | {network} | {estimate:.0f} | "
            f"{measured:.0f} | {estimate / measured:.2f} |"
        )


if __name__ == "__main__":
    main()
