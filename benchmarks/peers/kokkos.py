"""A plain PET as the files of pet-kokkos: ``<name>.json`` and ``<name>.safetensors``."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from torch import Tensor

from pet_mlip.convert.hypers import AS_METATRAIN, OURS_ALONE
from pet_mlip.convert.weights import metatrain_name
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError


def write_kokkos(prefix: Path, potential: Potential) -> None:
    """Write ``<prefix>.json`` and ``<prefix>.safetensors``.

    Args:
        prefix: Path without a suffix.
        potential: Without an ensemble.

    Raises:
        UserError: It has something that pet-kokkos does not know.
    """
    hypers = potential.pet_hypers
    exact = hypers.num_neighbors_adaptive is not None and hypers.adaptive_cutoff_method == "exact"
    ours = any(getattr(hypers, name) != value for name, value in AS_METATRAIN.items())
    if potential.symmetrization.ensemble != "none" or hypers.zbl or ours or exact:
        raise UserError(
            "pet-kokkos has no ensembles, no ZBL repulsion, no radial functions, no neighbour "
            "density, no channels without directions and no exact adaptive cutoffs: give it a "
            "plain PET as metatrain has it."
        )
    described = hypers.model_dump(exclude=OURS_ALONE)
    described["head_dim"] = hypers.d_pet // hypers.num_heads
    if hypers.num_neighbors_adaptive is None:
        described["adaptive_cutoff_method"] = "solver"  # "exact", our default, is not known
    content = {
        "hypers": described,
        "n_species": len(potential.species),
        "species_to_index": potential.preparation.species_index.tolist(),
        "composition_energies": potential.composition.tolist(),
        "energy_scale": float(potential.scale),
        "length_unit": "angstrom",
        "energy_unit": "eV",
    }
    prefix.with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")
    # Empty ones are tables that a plain PET does not use; all others have metatrain's names.
    weights = {
        metatrain_name(name, "energy"): value
        for name, value in potential.pet.state_dict().items()
        if value.numel() > 0
    }
    write_safetensors(prefix.with_suffix(".safetensors"), weights)


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write float32 tensors: length of the header, the header as JSON, then the numbers."""
    arrays = {name: value.detach().float().contiguous().numpy() for name, value in tensors.items()}
    header: dict[str, object] = {}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(array.astype(np.dtype("<f4"), copy=False).tobytes())
