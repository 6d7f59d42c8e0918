"""Small random models for LAMMPS."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.export import save_model
from pet_mlip.export.metadata import Metadata
from pet_mlip.graph.hypers import PETHypers

ELEMENTS = ["Si", "O"]
CUTOFF = 3.4

MODELS = {
    "plain": {"ensemble": "none", "num_gnn_layers": 1, "featurizer_type": "residual"},
    "2 layers, residual": {"num_gnn_layers": 2, "featurizer_type": "residual"},
    "2 layers, feedforward": {
        "num_gnn_layers": 2,
        "featurizer_type": "feedforward",
        "cutoff_width": 2.0,
    },
    "adaptive cutoffs": {
        "num_gnn_layers": 1,
        "featurizer_type": "feedforward",
        "num_neighbors_adaptive": 5.0,
        "zbl": True,
    },
    "3 layers": {
        "num_gnn_layers": 3,
        "featurizer_type": "residual",
        "normalization": "LayerNorm",
        "activation": "SiLU",
        "transformer_type": "PostLN",
    },
}


def small_potential(name: str) -> Potential:
    """A random potential whose forces are of the order of 1 eV/Å."""
    hypers = dict(MODELS[name])
    ensemble = hypers.pop("ensemble", "closest_pairs")
    train = "structure" if ensemble == "none" else "full"
    sizes = {"d_pet": 12, "d_node": 12, "d_head": 8, "d_feedforward": 16, "num_heads": 2}
    hypers = {"cutoff_width": 0.6, "num_attention_layers": 1, **sizes, **hypers}
    pet = PETHypers(cutoff=CUTOFF, **hypers)
    torch.manual_seed(5)
    symmetrization = SymmetrizationHypers(ensemble=ensemble, train=train)
    potential = Potential([8, 14], pet, symmetrization).set_dtype(torch.float64)
    potential.set_baseline({8: -400.0, 14: -100.0}, 0.6)
    return potential


@cache
def exported(name: str, dtype: str, claimed_cutoff: float | None) -> bytes:
    """An exported file. Exporting takes longer than most of the simulations with it."""
    potential = small_potential(name)
    true_lines = Metadata.to_lines

    def lines(self: Metadata) -> str:
        claim = f"cutoff {CUTOFF if claimed_cutoff is None else claimed_cutoff}"
        return true_lines(self).replace(f"cutoff {CUTOFF}", claim)

    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metadata, "to_lines", lines)
        save_model(Path(folder) / "model.pt", potential, dtype=dtype)
        return (Path(folder) / "model.pt").read_bytes()


def save(
    path: Path, name: str, dtype: str = "float64", claimed_cutoff: float | None = None
) -> Path:
    """Export one of `MODELS`; with a cutoff in its metadata that is not the true one, if given."""
    path.write_bytes(exported(name, dtype, claimed_cutoff))
    return path


def save_charged(path: Path) -> Path:
    """Export a model that depends on charge and spin."""
    pet = PETHypers(cutoff=CUTOFF, d_pet=8, d_node=8, num_heads=2, system_conditioning=True)
    torch.manual_seed(5)
    plain = SymmetrizationHypers(ensemble="none", train="structure")
    potential = Potential([8, 14], pet, plain).set_dtype(torch.float64)
    for parameter in potential.pet.conditioning.parameters():
        parameter.data.normal_()
    save_model(path, potential, dtype="float64")
    return path
