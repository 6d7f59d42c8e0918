"""What a LAMMPS step costs beyond the bare model call, on one rank.

    python benchmarks/lammps_overhead.py [--atoms 512 4096] [--repeats 5]

Silicon at 300 K with a random float32 model, plain and with ECSE. Both sides run in one process, in
turns, and are timed in CPU seconds: a LAMMPS run of several steps (neighbour list, integrator and
the pair style's own work included), and as many calls of the model in Python on the same
neighbour list. Prints the ratio of the two, median and range over the repeats.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from ase.io.lammpsdata import write_lammps_data

from pet_mlip.ase.neighbours import find_graph
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.export import load_model, save_model
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.lammps import lammps

STEPS = 5
SKIN = 2.0
DECK = """
units metal
atom_style atomic
atom_modify map yes
read_data {folder}/silicon.data
pair_style pet device cpu chunk {chunk}
pair_coeff * * {folder}/model.pt Si
neighbor {skin} bin
fix 1 all nve
velocity all create 300 1
timestep 0.0005
thermo 1000000
run 0
"""


def timed(call) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(folder: Path, n_atoms: int, ensemble: str, chunk: int, repeats: int) -> None:
    """Print one line of the table."""
    train = "structure" if ensemble == "none" else "full"
    torch.manual_seed(0)
    pet = PETHypers(d_pet=64, d_node=64, d_head=64, d_feedforward=128, num_heads=4)
    potential = Potential([14], pet, SymmetrizationHypers(ensemble=ensemble, train=train))
    save_model(folder / "model.pt", potential)
    atoms = bulk("Si", cubic=True) * ([round((n_atoms / 8) ** (1 / 3))] * 3)
    atoms.rattle(0.05, seed=1)
    write_lammps_data(folder / "silicon.data", atoms, masses=True)
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.commands_string(DECK.format(folder=folder, skin=SKIN, chunk=chunk))

    model = load_model(folder / "model.pt", device="cpu")
    graph = find_graph(atoms, model.metadata.cutoff + SKIN, model.device)
    # Each edge ends at an image of its own.
    positions = torch.tensor(atoms.positions)
    points = torch.cat([positions, positions[graph.edge_index[0]] + graph.edge_vectors])
    ends = len(atoms) + torch.arange(len(graph.edge_vectors))

    def calls() -> None:
        for _ in range(STEPS + 1):  # a run evaluates its first configuration too
            model.drive(points, ends, graph, chunk_size=chunk)

    calls()
    pairs = [(timed(lambda: lmp.command(f"run {STEPS}")), timed(calls)) for _ in range(repeats)]
    ratios = [in_lammps / bare for in_lammps, bare in pairs]
    bare = np.median([bare for _, bare in pairs]) / (STEPS + 1)
    print(
        f"| {len(atoms)} | {ensemble} | {1000 * bare:.0f} | {np.median(ratios):.3f} | "
        f"{min(ratios):.3f} - {max(ratios):.3f} |",
        flush=True,
    )
    lmp.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", nargs="+", type=int, default=[512, 4096])
    parser.add_argument("--ensembles", nargs="+", default=["none", "closest_pairs"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=65536)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| atoms | ensemble | model call, CPU ms | LAMMPS / model | range |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for n_atoms in options.atoms:
        for ensemble in options.ensembles:
            with tempfile.TemporaryDirectory() as folder:
                compare(Path(folder), n_atoms, ensemble, options.chunk, options.repeats)


if __name__ == "__main__":
    main()
