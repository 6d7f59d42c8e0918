"""Processor time of a training step: with the ensemble, without it, and by metatrain.

    python -m benchmarks.training_step [--shape ours|metatrain|narrow] [--repeats 15]

A step is energies, forces, a squared loss of both, and its gradient over the weights; no optimiser,
data or neighbour lists. All take turns, and medians of ratios are printed. `plain` has one random
matrix per structure; metatrain's PET, if it is installed, has the same shape and differentiates
twice through autograd, as it does in training. It does not take part with ``--shape ours``, which
has parts that it lacks; ``narrow`` is metatrain's network with our default widths.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from ase import Atoms
from ase.build import bulk, molecule

from benchmarks.peers.weights import METATRAIN_DEFAULTS
from pet_mlip.convert.hypers import AS_METATRAIN
from pet_mlip.data.batch import Batch, batch_from_atoms
from pet_mlip.data.neighbours import neighbour_list
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.ecse.training import random_frames
from pet_mlip.engine.derivatives import predict
from pet_mlip.engine.potential import Potential
from pet_mlip.graph.hypers import PETHypers

STRUCTURES = {
    "ethanol, 8": [molecule("CH3CH2OH")] * 8,
    "silicon, 64 atoms": [bulk("Si", cubic=True) * 2],
    "copper, 32 atoms": [bulk("Cu", cubic=True) * 2],
}
SPECIES = [1, 6, 8, 14, 29]
AS_PEER = METATRAIN_DEFAULTS | AS_METATRAIN
NARROW = {"d_pet": 64, "d_node": 64, "d_head": 64, "d_feedforward": 128, "num_heads": 4}
SHAPES = {"ours": {}, "metatrain": AS_PEER, "narrow": AS_PEER | NARROW}

Step = Callable[[], None]


def ours(hypers: PETHypers, batch: Batch, ensemble: str) -> Step:
    """A step of this package."""
    train = "structure" if ensemble == "none" else "full"
    symmetrization = SymmetrizationHypers.model_validate({"ensemble": ensemble, "train": train})
    potential = Potential(SPECIES, hypers, symmetrization).train()
    n_structures = int(batch.structure.max()) + 1
    frames = None
    if ensemble == "none":
        frames = random_frames(batch.structure, torch.arange(n_structures))

    def step() -> None:
        potential.zero_grad()
        found = predict(
            potential, batch.graph, batch.structure, n_structures, frames, training=True
        )
        (found.energy.square().sum() + found.forces.square().sum()).backward()

    return step


def metatrain(hypers: PETHypers, batch: Batch, structures: list[Atoms]) -> Step:
    """A step of metatrain's PET of the same shape."""
    from metatrain.pet.modules.backend import PETBackend

    shape = {
        name: value
        for name, value in hypers.model_dump().items()
        if name not in {*AS_METATRAIN, "density_degree", "zbl", "results"}
    }
    backend = PETBackend({**shape, "long_range": {"enable": False}}, SPECIES)
    backend.add_output("energy", {"energy": [1]})
    positions = torch.cat([torch.from_numpy(a.positions) for a in structures]).float()
    cells = torch.stack([torch.from_numpy(a.cell[:]) for a in structures]).float()
    graph = batch.graph
    lists = [neighbour_list(a.positions, a.cell, a.pbc, hypers.cutoff) for a in structures]
    shifts = torch.cat([torch.from_numpy(shifts) for _, shifts, _ in lists])

    def step() -> None:
        backend.zero_grad()
        moving = positions.clone().requires_grad_(True)
        inputs = backend.preprocess(
            moving,
            graph.edge_index[0],
            graph.edge_index[1],
            graph.species,
            cells,
            shifts,
            batch.structure,
            hypers.cutoff_width_adaptive,
        )
        features = backend.calculate_features(inputs)
        found, _, _ = backend.predict(*features, inputs, cells, batch.structure, ["energy"])
        energies = found["energy"][0].squeeze(1)
        (forces,) = torch.autograd.grad(energies.sum(), moving, create_graph=True)
        (energies.sum().square() + forces.square().sum()).backward()

    return step


def measure(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each in turn, the first two rounds left out."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(repeats + 2):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if number >= 2:
                seconds[name].append(time.process_time() - start)
    return seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), default="ours")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    hypers = PETHypers(**SHAPES[options.shape])
    print("| batch | plain, ms | ECSE / plain | metatrain / plain |")
    print("| --- | --- | --- | --- |")
    for name, perfect in STRUCTURES.items():
        structures = [atoms.copy() for atoms in perfect]
        for seed, atoms in enumerate(structures):
            atoms.rattle(0.05, seed=seed)
        batch = batch_from_atoms(structures, hypers.cutoff)
        steps = {
            "plain": ours(hypers, batch, "none"),
            "ecse": ours(hypers, batch, "closest_pairs"),
        }
        if options.shape != "ours" and find_spec("metatrain") is not None:
            steps["metatrain"] = metatrain(hypers, batch, structures)
        seconds = measure(steps, options.repeats)
        cells = [f"{1000 * statistics.median(seconds['plain']):.0f}"]
        for other in ("ecse", "metatrain"):
            pairs = zip(seconds.get(other, []), seconds["plain"], strict=False)
            ratios = [one / plain for one, plain in pairs]
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
