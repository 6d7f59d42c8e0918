"""Models and structures whose numbers are pinned.

python tests/golden_models.py     writes the numbers anew, where the mathematics changed
"""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse.hypers import ClosestPairsHypers, SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.graph.graph import electronic_state
from pet_mlip.graph.hypers import PETHypers

FILE = Path(__file__).with_name("golden_numbers.json")
SPECIES = [1, 6, 8, 14]
SMALL: dict[str, Any] = {
    "cutoff": 3.5,
    "cutoff_width": 0.5,
    "d_pet": 8,
    "d_node": 8,
    "d_head": 6,
    "d_feedforward": 10,
    "num_heads": 2,
    "num_attention_layers": 2,
    "num_gnn_layers": 2,
    "num_radial": 3,
    "density_channels": 0,
    "density_bound": None,
    "direction_share": 1.0,
    "featurizer_type": "feedforward",
    "transformer_type": "PreLN",
    "normalization": "RMSNorm",
    "activation": "SwiGLU",
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "default": {},
    "residual": {"featurizer_type": "residual", "transformer_type": "PostLN"},
    "post_norm_layer": {"transformer_type": "PostLN", "normalization": "LayerNorm"},
    "pre_norm_layer": {"normalization": "LayerNorm", "activation": "SiLU"},
    "wide": {"d_node": 12, "num_gnn_layers": 3, "num_radial": 0},
    "wide_post_norm": {"d_node": 12, "transformer_type": "PostLN", "activation": "SiLU"},
    "one_layer": {"num_gnn_layers": 1, "num_attention_layers": 1, "cutoff_function": "Cosine"},
    "temperature": {"attention_temperature": 1.7, "num_heads": 4, "featurizer_type": "residual"},
    "adaptive": {"num_neighbors_adaptive": 6.0},
    "adaptive_grid": {"num_neighbors_adaptive": 6.0, "adaptive_cutoff_method": "grid"},
    "adaptive_solver": {"num_neighbors_adaptive": 6.0, "adaptive_cutoff_method": "solver"},
    "zbl": {"zbl": True},
    "conditioned": {"system_conditioning": True},
    "wide_cutoff": {"cutoff_width": 2.5, "density_channels": 2},
    "wide_adaptive": {"cutoff_width": 2.0, "num_neighbors_adaptive": 6.0, "density_channels": 2},
    "few_directions": {"direction_share": 0.4},
    "density": {"density_channels": 3, "density_degree": 3},
    "density_bounded": {"density_channels": 3, "density_degree": 3, "density_bound": 0.3},
    "density_residual": {
        "density_channels": 2,
        "featurizer_type": "residual",
        "transformer_type": "PostLN",
        "num_gnn_layers": 3,
    },
}


def old_name(name: str) -> str:
    """The name that a parameter had when the numbers were pinned."""
    for pattern, replacement in (
        (r"center\.contraction", "center_contraction"),
        (r"center\.expansion", "center_expansion"),
        (r"center\.norm", "norm_center_features"),
        (r"center\.mlp", "center_mlp"),
        (r"exchanges\.(\d+)\.mixing\.norm", r"combination_norms.\1"),
        (r"exchanges\.(\d+)\.mixing\.w_in", r"combination_mlps.\1.0"),
        (r"exchanges\.(\d+)\.mixing\.w_out", r"combination_mlps.\1.2"),
        (r"readouts\.(\d+)\.(node|edge)_head\.first", r"\2_heads.\1.mlp.0"),
        (r"readouts\.(\d+)\.(node|edge)_head\.second", r"\2_heads.\1.mlp.2"),
        (r"readouts\.(\d+)\.(node|edge)_head\.last", r"\2_heads.\1.last"),
    ):
        name = re.sub(pattern, replacement, name)
    return name


def make_potential(architecture: str, ensemble: str) -> Potential:
    """A potential whose weights depend on the names of its parameters only."""
    hypers = PETHypers(**{**SMALL, **ARCHITECTURES[architecture]})
    train = "structure" if ensemble == "none" else "full"
    # As the numbers were pinned.
    pairs = ClosestPairsHypers(axis_cost=1.0, width=0.4, margin=0.0)
    symmetrization = SymmetrizationHypers(ensemble=ensemble, train=train, closest_pairs=pairs)
    potential = Potential(SPECIES, hypers, symmetrization).set_dtype(torch.float64)
    with torch.no_grad():
        for name, parameter in potential.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(old_name(name).encode()))
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            width = parameter.shape[-1] if parameter.ndim == 2 else 1
            if "embedder" in name and "bias" not in name:
                width = 1
            scale = 0.3 if parameter.ndim == 1 else width**-0.5
            parameter.copy_(
                (1.0 if "norm" in old_name(name) and "weight" in name else 0.0) + scale * drawn
            )
    potential.set_baseline({1: -1.5, 6: 0.7, 8: 2.0, 14: -3.1}, 1.3)
    return potential.eval()


def make_structures() -> dict[str, Atoms]:
    """A molecule, a tiny crystal with images of its own atoms, a skewed one, a slab, an atom."""
    rng = np.random.default_rng(7)
    structures = {"ethanol": molecule("CH3CH2OH"), "atom": Atoms("Si"), "dimer": molecule("CO")}
    structures["crystal"] = bulk("Si", cubic=False)
    skewed = bulk("SiC", "zincblende", a=4.3)
    skewed.set_cell(skewed.cell.array @ np.array([[1, 0.1, 0], [0, 1.05, 0.2], [0, 0, 0.95]]), True)
    structures["skewed"] = skewed
    slab = bulk("SiO", "rocksalt", a=4.2) * (2, 1, 1)
    slab.pbc = [True, True, False]
    structures["slab"] = slab
    for atoms in structures.values():
        if len(atoms) > 1:
            atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
    return structures


def evaluate(potential: Potential, atoms: Atoms) -> dict[str, list[Any]]:
    """Atomic energies and gradient over positions and strain, by autograd of positions."""
    graph = batch_from_atoms([atoms], potential.cutoff).graph
    charge = 1 if potential.pet_hypers.system_conditioning else 0
    state = electronic_state(len(atoms), charge, 1 + charge)
    positions = torch.zeros(len(atoms), 3, dtype=torch.float64, requires_grad=True)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    centre, neighbour = graph.edge_index
    vectors = graph.edge_vectors + graph.edge_vectors @ strain
    vectors = vectors + positions[neighbour] - positions[centre]
    energies = potential(graph._replace(edge_vectors=vectors, electronic=state))
    gradients = torch.autograd.grad(energies.sum(), [positions, strain], materialize_grads=True)
    named = {"energies": energies.detach(), "forces": -gradients[0], "virial": gradients[1]}
    return {name: values.reshape(-1).tolist() for name, values in named.items()}


def average_frames(atoms: Atoms) -> dict[str, list[float]]:
    """Sums over the frames of each atom: of 1, of w^2, and of w R."""
    potential = make_potential("default", "closest_pairs")
    frames = potential.layer_frames(batch_from_atoms([atoms], potential.cutoff).graph)
    values = torch.cat(
        [
            torch.ones_like(frames.weight)[:, None],
            frames.weight[:, None] ** 2,
            (frames.weight[:, None, None] * frames.matrix).flatten(1),
        ],
        dim=1,
    )
    sums = values.new_zeros(len(atoms), values.shape[1]).index_add(0, frames.atom, values)
    return {"frames": sums.reshape(-1).tolist()}


def evaluate_all() -> dict[str, Any]:
    """Numbers by architecture and structure, of plain models; of the frames by structure."""
    structures = make_structures()
    of_frames = {name: average_frames(atoms) for name, atoms in structures.items()}
    return {"closest_pairs": of_frames} | {
        architecture: {
            name: evaluate(make_potential(architecture, "none"), atoms)
            for name, atoms in structures.items()
        }
        for architecture in ARCHITECTURES
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(evaluate_all()) + "\n", encoding="utf-8")
