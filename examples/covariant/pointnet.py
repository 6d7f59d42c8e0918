"""Dipoles and polarizabilities from a network that is no PET, with and without an ensemble.

    python examples/covariant/pointnet.py [--steps 1000]

Trains a small PointNet twice on the molecules in this folder: symmetrized by the ensemble, and
plain, with randomly rotated data instead. Prints the errors on unseen structures, in per cent of
the standard deviation of the data, and how far the predictions are from covariant.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase.io import read
from torch import Tensor, nn

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse import SymmetrizationHypers, Symmetrized
from pet_mlip.ecse.training import random_rotations
from pet_mlip.graph.graph import Graph

DATA = Path(__file__).resolve().parent
CUTOFF = 4.5  # Å
RANKS = {"dipole": 1, "polarizability": 2}
UNITS = {"dipole": "e Å", "polarizability": "Å^3"}


class PointNet(nn.Module):
    """An MLP of each neighbour's coordinates, a sum over the neighbours, and another MLP."""

    def __init__(self, width: int = 48, n_species: int = 10) -> None:
        super().__init__()
        self.species = nn.Embedding(n_species, 8)
        self.of_neighbour = mlp(4 + 2 * 8, width, width)
        self.of_atom = mlp(width + 8, width, 3 + 6 + 1)

    def forward(
        self, vectors: Tensor, distance: Tensor, switch: Tensor, species: Tensor, centre: Tensor
    ) -> dict[str, Tensor]:
        """Dipole (P, 3) and polarizability (P, 3, 3) of each atom, in the coordinates given."""
        atom = self.species(centre)
        pair = torch.cat([self.species(species), atom.unsqueeze(1).expand(*species.shape, 8)], -1)
        features = torch.cat([vectors, distance.unsqueeze(-1), pair], -1)
        pooled = (self.of_neighbour(features) * switch.unsqueeze(-1)).sum(dim=1)
        out = self.of_atom(torch.cat([pooled, atom], -1))
        xx, yy, zz, xy, xz, yz = out[:, 3:9].unbind(1)
        traceless = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], 1).reshape(-1, 3, 3)
        isotropic = torch.eye(3, dtype=out.dtype, device=out.device) * (1.0 + out[:, 9, None, None])
        return {"dipole": out[:, :3], "polarizability": traceless + isotropic}


def mlp(n_in: int, width: int, n_out: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(n_in, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Linear(width, n_out),
    )


@dataclass
class Molecules:
    """Structures of a file with their labels."""

    graph: Graph
    structure: Tensor
    """Structure of each atom, (N,)."""
    labels: dict[str, Tensor]
    """Dipoles (S, 3) in e Å and polarizabilities (S, 3, 3) in Å^3."""

    @classmethod
    def load(cls, file: Path, part: slice = slice(None)) -> Molecules:
        """Read structures of an extended XYZ file of this folder."""
        structures = read(file, part)
        batch = batch_from_atoms(structures, CUTOFF)
        labels = {
            "dipole": np.array([atoms.get_dipole_moment() for atoms in structures]),
            "polarizability": np.array([atoms.info["polarizability"] for atoms in structures]),
        }
        tensors = {name: torch.from_numpy(values) for name, values in labels.items()}
        return cls(batch.graph, batch.structure, tensors)

    def rotated(self, rotation: Tensor) -> Graph:
        """The graph after one O(3) operation on all structures."""
        return self.graph._replace(edge_vectors=self.graph.edge_vectors @ rotation)


def predict(model: Symmetrized, molecules: Molecules, graph: Graph) -> dict[str, Tensor]:
    """Sums over the atoms of each structure."""
    of_atoms = model(graph, molecules.structure)
    sums = {}
    for name, values in of_atoms.items():
        total = torch.zeros_like(molecules.labels[name])
        sums[name] = total.index_add(0, molecules.structure, values)
    return sums


def train(
    symmetrization: SymmetrizationHypers, batches: list[Molecules], steps: int
) -> Symmetrized:
    """A PointNet after gradient steps on one batch after the other."""
    torch.manual_seed(0)
    model = Symmetrized(
        PointNet(),
        CUTOFF,
        RANKS,
        symmetrization=symmetrization,
        train=symmetrization.train,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    spread = {
        name: deviation(torch.cat([batch.labels[name] for batch in batches])) for name in RANKS
    }
    for step in range(steps):
        molecules = batches[step % len(batches)]
        found = predict(model, molecules, molecules.graph)
        terms = [
            ((found[name] - label) / spread[name]).square().mean()
            for name, label in molecules.labels.items()
        ]
        optimizer.zero_grad()
        torch.stack(terms).sum().backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def deviation(labels: Tensor) -> float:
    """Root mean square deviation of the components from the mean over structures."""
    return float((labels - labels.mean(dim=0)).square().mean().sqrt())


@torch.no_grad()
def evaluate(model: Symmetrized, molecules: Molecules, n_rotations: int = 8) -> dict[str, float]:
    """RMS error of each label, and RMS deviation of turned predictions from their mean."""
    results: dict[str, list[Tensor]] = {name: [] for name in RANKS}
    for rotation in random_rotations(torch.arange(n_rotations)):
        found = predict(model, molecules, molecules.rotated(rotation))
        results["dipole"].append(found["dipole"] @ rotation.T)
        results["polarizability"].append(rotation @ found["polarizability"] @ rotation.T)
    measured = {}
    for name, label in molecules.labels.items():
        values = torch.stack(results[name])
        measured[f"{name} error"] = float((values - label).square().mean().sqrt())
        spread = values - values.mean(dim=0)
        measured[f"{name} rotational error"] = float(spread.square().mean().sqrt())
    return measured


def main() -> None:
    """Trains both models and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="gradient steps of each model")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    test = Molecules.load(DATA / "test.xyz")
    # Every sixth structure: all kinds of molecules are in each batch.
    batches = [Molecules.load(DATA / "train.xyz", slice(first, None, 6)) for first in range(6)]
    ways = {
        "plain": SymmetrizationHypers(ensemble="none", train="structure"),
        "ECSE": SymmetrizationHypers(),
    }
    for way, symmetrization in ways.items():
        start = time.process_time()
        measured = evaluate(train(symmetrization, batches, arguments.steps), test)
        print(f"{way}: {arguments.steps} steps in {time.process_time() - start:.0f} s")
        for name, label in test.labels.items():
            spread = deviation(label)
            error, rotational = measured[f"{name} error"], measured[f"{name} rotational error"]
            print(
                f"  {name:15s} error {error:.4f} {UNITS[name]} ({100 * error / spread:.1f} % of "
                f"the standard deviation), rotational error {rotational:.1e} {UNITS[name]}"
            )


if __name__ == "__main__":
    main()
