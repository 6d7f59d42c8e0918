"""Models for tests: small random PETs, exported, and an analytic pair potential in their place."""

import numpy as np
import torch
from torch import Tensor, nn

from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.export import LoadedModel, Metadata
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.train.checkpoint import write_checkpoint

CUTOFF = 4.0
SPECIES = [1, 6, 8, 14, 29]


def small_potential(ensemble="closest_pairs", seed=0, **hypers):
    """A random PET of narrow layers that knows H, C, O, Si and Cu."""
    sizes = {"d_pet": 16, "d_node": 16, "d_head": 16, "d_feedforward": 32, "num_heads": 2}
    sizes |= {"cutoff": CUTOFF, "num_attention_layers": 1, **hypers}
    train = "structure" if ensemble == "none" else "full"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        symmetrization = SymmetrizationHypers(ensemble=ensemble, train=train)
        potential = Potential(SPECIES, PETHypers(**sizes), symmetrization)
    potential.set_baseline({z: -float(z) for z in SPECIES}, 1.0)
    return potential.eval()


def nearly_invariant_potential(seed=0, **hypers):
    """A random PET that reads directions weakly, as if trained in random orientations.

    What its ensemble adds to its plain part is a small correction, and its repulsion keeps atoms
    apart in a simulation.
    """
    potential = small_potential("closest_pairs", seed, zbl=True, **hypers).set_dtype(torch.float64)
    trained = potential.symmetrization.model_copy(update={"train": "environment"})
    potential.symmetrization = trained
    read_directions_weakly(potential)
    return potential


def read_directions_weakly(potential):
    """Make the correction to the plain part small, as training in random orientations does."""
    with torch.no_grad():
        for layer in potential.pet.layers:
            layer.edge_embedder.weight[:, :3] *= 0.1


class MorseModel(nn.Module):
    """E_i = sum_j phi(r_ij) / 2 with phi a Morse curve times (1 - (r / cutoff)^2)^3.

    It has the signature of an exported model, and exact derivatives.
    """

    def __init__(self, cutoff: float = CUTOFF, depth: float = 0.5, r0: float = 2.5, a: float = 1.6):
        super().__init__()
        self.cutoff = cutoff
        self.depth = depth
        self.r0 = r0
        self.a = a

    def forward(
        self,
        species: Tensor,
        edge_index: Tensor,
        edge_vectors: Tensor,
        edge_shifts: Tensor,
        electronic: Tensor | None = None,
        weights: Tensor | None = None,
        compute_gradient: bool = True,
        chunk_size: int = 0,
        reverse: Tensor | None = None,
        uncertainty: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor], Tensor, Tensor]:
        r = torch.linalg.vector_norm(edge_vectors, dim=1)
        x = (r / self.cutoff).clamp(max=1.0)
        switch = (1 - x * x) ** 3
        slope = -6 * x / self.cutoff * (1 - x * x) ** 2
        u = torch.exp(-self.a * (r - self.r0))
        morse = self.depth * (u * u - 2 * u)
        phi = morse * switch
        dphi = self.depth * self.a * (2 * u - 2 * u * u) * switch + morse * slope
        energies = torch.zeros(species.shape[0], dtype=torch.float64)
        energies = energies.index_add(0, edge_index[0], 0.5 * phi)
        gradient = torch.zeros_like(edge_vectors)
        if compute_gradient:
            w = torch.ones_like(energies) if weights is None else weights
            gradient = (0.5 * dphi * w[edge_index[0]] / r)[:, None] * edge_vectors
        results: dict[str, Tensor] = {}
        nothing = torch.zeros(0, 0)
        return energies, gradient, torch.ones_like(species), results, nothing, nothing


def morse_model(cutoff=CUTOFF):
    """The pair potential as a loaded model."""
    metadata = Metadata(
        format_version=1,
        package_version="0",
        torch_version=torch.__version__,
        species=SPECIES,
        cutoff=cutoff,
        interaction_range=1,
        dtype="float64",
        units={"energy": "eV", "length": "angstrom"},
        symmetrization={"ensemble": "none", "train": "structure", "inference": "plain"},
        hypers={},
        n_parameters=0,
    )
    module = torch.jit.script(MorseModel(cutoff))
    return LoadedModel(module, metadata, torch.device("cpu"), "float64")


def morse_energy(atoms, cutoff=CUTOFF):
    """The same pair potential in eV by summing over many images, without any neighbour list."""
    model = MorseModel(cutoff)
    cell, pbc = atoms.cell.array, atoms.pbc
    reach = [3 if periodic else 0 for periodic in pbc]
    images = np.stack(
        np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1
    ).reshape(-1, 3)
    atoms = atoms.copy()
    atoms.wrap(eps=0)
    r = atoms.positions
    vectors = r[None, :, None] - r[:, None, None] + (images @ cell)[None, None]
    distance = np.linalg.norm(vectors, axis=-1)
    distance = distance[(distance > 1e-9) & (distance < cutoff)]
    u = np.exp(-model.a * (distance - model.r0))
    return 0.5 * (model.depth * (u * u - 2 * u) * (1 - (distance / cutoff) ** 2) ** 3).sum()


def checkpoint(path, potential):
    """A checkpoint as a training writes it."""
    state = potential.state_dict()
    write_checkpoint(
        path,
        {
            "potential": potential.config(),
            "dtype": str(next(potential.pet.parameters()).dtype).removeprefix("torch."),
            "weights": {key: torch.zeros_like(value) for key, value in state.items()},
            "average": state,
            "config": {"training": {"epochs": 3}},
            "summary": {"epoch": 3, "steps": 12},
        },
    )
    return path
