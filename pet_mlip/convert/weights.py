"""Weights of metatrain's PET under the names of `pet_mlip.engine.potential.Potential`."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from pet_mlip.errors import UserError

# Of ours alone: the species are read from the messages in the first layer, and radial functions
# are switched off by num_radial = 0.
WITHOUT_COUNTERPART = re.compile(r"layers\.(0\.neighbor_embedder\.weight|\d+\.radial_embedder)")
# Rows by the place of the species in the checkpoint.
SPECIES_TABLES = re.compile(
    r"edge_embedder\.weight|node_embedders\.\d+\.weight|gnn_layers\.\d+\.neighbor_embedder\.weight"
)


def rename(name: str, target: str) -> str:
    """Our name of one of metatrain's parameters, for one target of one block.

    Raises:
        KeyError: If it has no counterpart.
    """
    layer = r"gnn_layers\.(\d+)\."
    wide = r"layers.\1.layers.\2.center."
    of_target = rf"\.{re.escape(target)}\.(\d+)\."
    hidden, last = r"(node|edge)_heads" + of_target, r"(node|edge)_last_layers" + of_target
    renamings = [
        (layer + r"trans\.layers\.(\d+)\.norm_center_features\.(.+)", wide + r"norm.\3"),
        (layer + r"trans\.layers\.(\d+)\.center_(\w+\..+)", wide + r"\3"),
        (layer + r"trans\.layers\.(.+)", r"layers.\1.layers.\2"),
        (layer + r"compress\.0\.(.+)", r"layers.\1.compress_in.\2"),
        (layer + r"compress\.2\.(.+)", r"layers.\1.compress_out.\2"),
        (layer + r"((?:edge|neighbor)_embedder\..+)", r"layers.\1.\2"),
        (r"((?:node_embedders|edge_embedder)\..+)", r"\1"),
        (r"combination_norms\.(\d+)\.(.+)", r"exchanges.\1.mixing.norm.\2"),
        (r"combination_mlps\.(\d+)\.0\.(.+)", r"exchanges.\1.mixing.w_in.\2"),
        (r"combination_mlps\.(\d+)\.2\.(.+)", r"exchanges.\1.mixing.w_out.\2"),
        (r"system_conditioning\.(.+)", r"conditioning.\1"),
        (hidden + r"0\.(.+)", r"readouts.\2.\1_head.first.\3"),
        (hidden + r"2\.(.+)", r"readouts.\2.\1_head.second.\3"),
        (last + r"[^.]+\.(.+)", r"readouts.\2.\1_head.last.\3"),
    ]
    for pattern, replacement in renamings:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    raise KeyError(name)


def is_of_network(name: str, target: str) -> bool:
    """Whether a parameter is one of the network that predicts the target."""
    try:
        rename(name, target)
    except KeyError:
        return False
    return True


def is_left_out(name: str, others: list[str], zbl: bool) -> bool:
    """Whether a parameter or buffer is of no consequence for the target.

    Args:
        name: As in metatrain.
        others: All targets but the one to convert.
        zbl: Whether the checkpoint has a ZBL repulsion, whose buffers hold tabulated constants.
    """
    head = "|".join(map(re.escape, others)) or "(?!)"
    patterns = [
        rf"(node|edge)_(heads|last_layers)\.({head})\..+",
        rf"additive_models\.0\.({head})_composition_buffer",
        rf"scaler\.({head})_(per_target_|per_property_)?scaler_buffer",
        r"species_to_species_index",
        r"additive_models\.0\.((model\.)?type_to_index|dummy_buffer)",
        r"scaler\.(model\.type_to_index|dummy_buffer)",
    ]
    if zbl:
        patterns.append(r"additive_models\.1\.(species_to_index|covalent_radii)")
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def has_lora(names: Iterable[str]) -> bool:
    """Whether there are low-rank corrections among the parameters."""
    return any(".lora_A." in name for name in names)


def merge_lora(weights: dict[str, Tensor], finetuning: dict[str, object]) -> dict[str, Tensor]:
    """Fold low-rank corrections into the matrices that they correct: W + alpha / rank * B A.

    Args:
        weights: Parameters of the network, float64; those of corrected layers are called
            ``*.linear.weight`` and ``*.linear.bias`` beside ``*.lora_A.weight`` and
            ``*.lora_B.weight``.
        finetuning: How the model was fine-tuned, which tells alpha.

    Raises:
        UserError: If alpha is not known.
    """
    corrected = [name.removesuffix(".lora_A.weight") for name in weights if ".lora_A." in name]
    config = finetuning.get("config")
    if finetuning.get("method") != "lora" or not isinstance(config, dict):
        raise UserError("it holds LoRA weights, but not the alpha that they are scaled by")
    alpha = float(config.get("alpha", 8))
    merged = dict(weights)
    for layer in corrected:
        down, up = merged.pop(f"{layer}.lora_A.weight"), merged.pop(f"{layer}.lora_B.weight")
        weight = merged.pop(f"{layer}.linear.weight")
        merged[f"{layer}.weight"] = weight + alpha / down.shape[0] * (up @ down)
        if f"{layer}.linear.bias" in merged:
            merged[f"{layer}.bias"] = merged.pop(f"{layer}.linear.bias")
    return merged


def convert_weights(
    weights: dict[str, Tensor], target: str, rows: Tensor | None = None
) -> dict[str, Tensor]:
    """Parameters of metatrain's backend as a state dict of `pet_mlip.network.pet.PET`.

    Args:
        weights: Parameters that have a counterpart (see `rename`).
        target: The energy whose heads they are.
        rows: Row of each species in the tables of metatrain; by default as they are.

    Raises:
        KeyError: If a parameter has no counterpart.
    """
    converted = {}
    for name, value in weights.items():
        if rows is not None and SPECIES_TABLES.fullmatch(name):
            value = torch.index_select(value, 0, rows)
        converted[rename(name, target)] = value
    return converted
