"""The weights that are timed: one random PET, written for everyone who can run it."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.contestants import KOKKOS, METATRAIN, PLAIN, exported_path
from benchmarks.peers.kokkos import write_kokkos
from benchmarks.peers.structures import ELEMENTS
from pet_mlip.convert.hypers import AS_METATRAIN
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.export import save_model
from pet_mlip.graph.hypers import PETHypers

METATRAIN_DEFAULTS = {
    "cutoff": 4.5,
    "cutoff_width": 0.5,
    "d_pet": 128,
    "d_node": 256,
    "d_head": 128,
    "d_feedforward": 256,
    "num_heads": 8,
    "featurizer_type": "feedforward",
    "transformer_type": "PreLN",
    "normalization": "RMSNorm",
    "activation": "SwiGLU",
}


def write_models(
    folder: Path,
    shape: dict[str, Any],
    seed: int,
    ensembles: set[str],
    peers: set[str],
) -> str:
    """Write the same weights in every format that is asked for.

    Args:
        folder: Where to.
        shape: Hyperparameters that differ from metatrain's defaults.
        seed: Of the random weights.
        ensembles: Of our own contestants.
        peers: Names of the contestants; metatrain makes the weights if it is one of them.

    Returns:
        Who made the weights: metatrain or pet_mlip.
    """
    by_metatrain = "metatrain" in peers
    make = partial(metatrain_potential, folder) if by_metatrain else own_potential
    plain = make(shape, seed)
    for ensemble in ensembles:
        potential = with_ensemble(plain, ensemble)
        content = {"config": potential.config(), "weights": potential.state_dict()}
        torch.save(content, folder / f"{ensemble}.ckpt")
        save_model(exported_path(folder, ensemble), potential)
    if "pet-kokkos" in peers:
        write_kokkos(folder / KOKKOS, plain)
    return "metatrain" if by_metatrain else "pet_mlip"


def read_potential(folder: Path, ensemble: str, dtype: torch.dtype) -> Potential:
    """Our eager model, without gradients for its parameters."""
    content = torch.load(folder / f"{ensemble}.ckpt", weights_only=True)
    potential = Potential.from_config(content["config"])
    potential.load_state_dict(content["weights"])
    return potential.set_dtype(dtype).eval().requires_grad_(False)


def metatrain_potential(folder: Path, shape: dict[str, Any], seed: int) -> Potential:
    """Random weights by metatrain, exported by it, and converted."""
    from metatrain.pet import PET
    from metatrain.utils.architectures import get_default_hypers
    from metatrain.utils.data import DatasetInfo
    from metatrain.utils.data.target_info import get_energy_target_info

    from pet_mlip.convert import convert

    hypers = copy.deepcopy(get_default_hypers("pet")["model"]) | shape
    target = get_energy_target_info("energy", {"quantity": "energy", "unit": "eV"})
    info = DatasetInfo(length_unit="Angstrom", atomic_types=ELEMENTS, targets={"energy": target})
    torch.manual_seed(seed)
    model = PET(hypers, info).eval()
    torch.save(model.get_checkpoint(), folder / "metatrain.ckpt")
    model.export().save(str(folder / METATRAIN))
    return convert(folder / "metatrain.ckpt").potential


def own_potential(shape: dict[str, Any], seed: int) -> Potential:
    """Random weights of metatrain's default architecture."""
    torch.manual_seed(seed)
    hypers = PETHypers(**METATRAIN_DEFAULTS | AS_METATRAIN | shape)
    symmetrization = SymmetrizationHypers(ensemble=PLAIN, train="structure")
    return Potential(ELEMENTS, hypers, symmetrization)


def with_ensemble(plain: Potential, ensemble: str) -> Potential:
    """The same weights with another ensemble."""
    train = "structure" if ensemble == PLAIN else "full"
    symmetrization = SymmetrizationHypers.model_validate({"ensemble": ensemble, "train": train})
    potential = Potential(plain.species, plain.pet_hypers, symmetrization)
    potential.set_dtype(next(plain.pet.parameters()).dtype)
    potential.load_state_dict(plain.state_dict())
    return potential.eval()
