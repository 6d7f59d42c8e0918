"""Small random potentials and structures for the tests of the model."""

import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch import Tensor

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.data.neighbours import neighbour_list
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.derivatives import Prediction, predict
from pet_mlip.engine.potential import Potential
from pet_mlip.graph.graph import Graph, electronic_state
from pet_mlip.graph.hypers import PETHypers

CUTOFF = 3.0
SPECIES = [1, 6, 8, 14]
ENSEMBLES = ["none", "closest_pairs"]
FEATURIZERS = ["feedforward", "residual"]
BLOCKS = {"transformer_type": "PreLN", "normalization": "RMSNorm", "activation": "SwiGLU"}
"""What goes with feedforward in metatrain; the defaults go with residual."""
TINY = {
    "cutoff": 3.5,
    "d_pet": 8,
    "d_node": 8,
    "d_head": 8,
    "d_feedforward": 8,
    "num_heads": 2,
    "num_attention_layers": 1,
    "num_gnn_layers": 1,
}
"""Hyperparameters of a network that trains in a second."""


def make_potential(ensemble="closest_pairs", featurizer="feedforward", **hypers) -> Potential:
    """A random float64 potential whose biases and norms are random too."""
    sizes = {"d_pet": 8, "d_node": 12, "d_head": 6, "d_feedforward": 10, "num_heads": 2}
    sizes |= {"cutoff": CUTOFF, "num_attention_layers": 1, "num_radial": 3, **hypers}
    sizes = {**BLOCKS, **sizes} if featurizer == "feedforward" else sizes
    train = "structure" if ensemble == "none" else "full"
    pet = PETHypers(featurizer_type=featurizer, **sizes)
    symmetrization = SymmetrizationHypers(ensemble=ensemble, train=train)
    potential = Potential(SPECIES, pet, symmetrization).set_dtype(torch.float64)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in potential.pet.parameters():
            noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
            spread = 0.3 if parameter.dim() == 1 else max(parameter.shape[1], 1) ** -0.5
            parameter.copy_(spread * noise + (1.0 if parameter.dim() == 1 else 0.0))
    potential.set_baseline({z: -10.0 * z for z in SPECIES}, 1.0)
    return potential.eval().requires_grad_(False)


def rattled(atoms: Atoms, seed: int = 0) -> Atoms:
    """The atoms, moved by a few hundredths of an Å."""
    atoms.rattle(0.05, seed=seed)
    return atoms


def structures() -> dict[str, Atoms]:
    """Structures of every kind, by name."""
    cell = [(2.7, 0, 0), (1.9, 2.8, 0), (0.4, 1.2, 2.9)]
    return {
        "ethanol": rattled(molecule("CH3CH2OH")),
        "silicon": rattled(bulk("Si", cubic=False)),
        "self-images": bulk("C", "sc", a=1.9),
        "skewed": rattled(Atoms("SiO", [(0, 0, 0), (1.2, 0.9, 1.3)], cell=cell, pbc=True)),
        "slab": Atoms("OC", [(0, 0, 0), (0.8, 1.1, 0.9)], cell=[2.8, 2.9, 0], pbc=[1, 1, 0]),
        "wire": Atoms("CO", [(0, 0, 0), (1.1, 0.6, 0)], cell=[2.6, 0, 0], pbc=[1, 0, 0]),
        "water": rattled(molecule("H2O")),
        "CO2": molecule("CO2"),
        "dimer": molecule("CO"),
        "atom": Atoms("O"),
    }


def dense_crystal() -> Atoms:
    """Four atoms with 42 neighbours in `CUTOFF` each: many frames, rotated by sums of arrays."""
    atoms = bulk("C", "fcc", a=2.2, cubic=True)
    atoms.numbers[1:3] = [6, 8]
    return rattled(atoms)


def graph_of(*atoms: Atoms, cutoff: float = CUTOFF) -> Graph:
    """One graph of all the atoms."""
    return batch_from_atoms(atoms, cutoff).graph


def predict_atoms(potential: Potential, *atoms: Atoms, cutoff: float = CUTOFF) -> Prediction:
    """What the potential says about the structures, in one batch."""
    batch = batch_from_atoms(atoms, cutoff)
    return predict(potential, batch.graph, batch.structure, len(atoms))


def empty_graph(species: list[int]) -> Graph:
    """Atoms without any edge."""
    return Graph(
        torch.tensor(species, dtype=torch.int64),
        torch.zeros(2, 0, dtype=torch.int64),
        torch.zeros(0, 3, dtype=torch.float64),
        torch.zeros(0, dtype=torch.int64),
        electronic_state(len(species)),
        [len(species)],
    )


def shifts_of(atoms: Atoms, cutoff: float = CUTOFF) -> Tensor:
    """Cell shifts of the edges of `graph_of`, (E, 3)."""
    return torch.from_numpy(neighbour_list(atoms.positions, atoms.cell, atoms.pbc, cutoff)[1])


def edges_of(graph: Graph) -> dict[str, Tensor]:
    """The graph as arguments of an exported module."""
    names = ("species", "edge_index", "edge_vectors", "electronic", "reverse")
    no_shifts = torch.zeros(0, 3, dtype=torch.int64)
    return {name: getattr(graph, name) for name in names} | {"edge_shifts": no_shifts}


def lists_of(graph: Graph) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """What an exported module is driven with, besides points."""
    return graph.species, graph.edge_index, graph.reverse, graph.atoms_within


def assert_same_graph(found: Graph, expected: Graph) -> None:
    """Equal to the last bit."""
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(ours, list):
            assert ours == theirs
        else:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def assert_same(found: Tensor, expected: Tensor, bound: float = 1e-12) -> None:
    """Equal to an absolute bound."""
    torch.testing.assert_close(found, expected, rtol=0, atol=bound)
