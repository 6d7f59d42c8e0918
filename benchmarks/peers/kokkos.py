"""A plain PET as the files of pet-kokkos: ``<name>.json`` and ``<name>.safetensors``."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
from torch import Tensor

from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError

_LAYER = r"layers\.(\d+)\."
_TRANSFORMER = r"gnn_layers.\1.trans.layers.\2."
RENAMINGS = [
    (_LAYER + r"layers\.(\d+)\.center\.norm\.(.+)", _TRANSFORMER + r"norm_center_features.\3"),
    (_LAYER + r"layers\.(\d+)\.center\.(.+)", _TRANSFORMER + r"center_\3"),
    (_LAYER + r"layers\.(.+)", r"gnn_layers.\1.trans.layers.\2"),
    (_LAYER + r"compress_in\.(.+)", r"gnn_layers.\1.compress.0.\2"),
    (_LAYER + r"compress_out\.(.+)", r"gnn_layers.\1.compress.2.\2"),
    (_LAYER + r"((?:edge|neighbor)_embedder\..+)", r"gnn_layers.\1.\2"),
    (r"exchanges\.(\d+)\.mixing\.norm\.(.+)", r"combination_norms.\1.\2"),
    (r"exchanges\.(\d+)\.mixing\.w_in\.(.+)", r"combination_mlps.\1.0.\2"),
    (r"exchanges\.(\d+)\.mixing\.w_out\.(.+)", r"combination_mlps.\1.2.\2"),
    (r"readouts\.(\d+)\.(node|edge)_head\.first\.(.+)", r"\2_heads.energy.\1.0.\3"),
    (r"readouts\.(\d+)\.(node|edge)_head\.second\.(.+)", r"\2_heads.energy.\1.2.\3"),
    (
        r"readouts\.(\d+)\.(node|edge)_head\.last\.(.+)",
        r"\2_last_layers.energy.\1.energy___0.\3",
    ),
]


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
    if potential.symmetrization.ensemble != "none" or hypers.zbl or hypers.num_radial or exact:
        raise UserError(
            "pet-kokkos has no ensembles, no ZBL repulsion, no radial functions and no exact "
            "adaptive cutoffs: give it a plain PET as metatrain has it."
        )
    described = hypers.model_dump(exclude={"num_radial"})
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
    write_safetensors(prefix.with_suffix(".safetensors"), kokkos_weights(potential))


def kokkos_weights(potential: Potential) -> dict[str, Tensor]:
    """Weights under pet-kokkos' names, which are metatrain's."""
    weights = {}
    for name, value in potential.pet.state_dict().items():
        if value.numel() == 0:  # ours has tables that a plain PET does not use
            continue
        for pattern, replacement in RENAMINGS:
            if re.fullmatch(pattern, name):
                name = re.sub(pattern, replacement, name)
                break
        weights[name] = value
    return weights


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
