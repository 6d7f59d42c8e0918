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


# Names of parameters, ours and metatrain's, the first pair that fits.
NAMES = [
    (
        "layers.{layer}.layers.{number}.center.norm.{rest}",
        "gnn_layers.{layer}.trans.layers.{number}.norm_center_features.{rest}",
    ),
    (
        "layers.{layer}.layers.{number}.center.{rest}",
        "gnn_layers.{layer}.trans.layers.{number}.center_{rest}",
    ),
    ("layers.{layer}.layers.{rest}", "gnn_layers.{layer}.trans.layers.{rest}"),
    ("layers.{layer}.compress_in.{rest}", "gnn_layers.{layer}.compress.0.{rest}"),
    ("layers.{layer}.compress_out.{rest}", "gnn_layers.{layer}.compress.2.{rest}"),
    ("layers.{layer}.{end}_embedder.{rest}", "gnn_layers.{layer}.{end}_embedder.{rest}"),
    ("node_embedders.{rest}", "node_embedders.{rest}"),
    ("edge_embedder.{rest}", "edge_embedder.{rest}"),
    ("exchanges.{layer}.mixing.norm.{rest}", "combination_norms.{layer}.{rest}"),
    ("exchanges.{layer}.mixing.w_in.{rest}", "combination_mlps.{layer}.0.{rest}"),
    ("exchanges.{layer}.mixing.w_out.{rest}", "combination_mlps.{layer}.2.{rest}"),
    ("conditioning.{rest}", "system_conditioning.{rest}"),
    ("readouts.{layer}.{head}_head.first.{rest}", "{head}_heads.{target}.{layer}.0.{rest}"),
    ("readouts.{layer}.{head}_head.second.{rest}", "{head}_heads.{target}.{layer}.2.{rest}"),
    (
        "readouts.{layer}.{head}_head.last.{rest}",
        "{head}_last_layers.{target}.{layer}.{block}.{rest}",
    ),
]
FIELDS = {
    "layer": r"\d+",
    "number": r"\d+",
    "end": "edge|neighbor",
    "head": "node|edge",
    "block": "[^.]+",
    "rest": ".+",
}


def our_name(name: str, target: str) -> str:
    """Our name of one of metatrain's parameters, for one target of one block.

    Raises:
        KeyError: If it has no counterpart.
    """
    return _renamed(name, [(theirs, ours) for ours, theirs in NAMES], target)


def metatrain_name(name: str, target: str) -> str:
    """Metatrain's name of one of our parameters.

    Raises:
        KeyError: If it has no counterpart.
    """
    return _renamed(name, NAMES, target)


def _renamed(name: str, pairs: list[tuple[str, str]], target: str) -> str:
    fields = {field: f"(?P<{field}>{pattern})" for field, pattern in FIELDS.items()}
    for given, wanted in pairs:
        pattern = given.replace(".", r"\.").format(target=re.escape(target), **fields)
        if found := re.fullmatch(pattern, name):
            known = {"target": target, "block": f"{target}___0"}
            return wanted.format(**known | found.groupdict())
    raise KeyError(name)


def is_of_network(name: str, target: str) -> bool:
    """Whether a parameter is one of the network that predicts the target."""
    try:
        our_name(name, target)
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
        weights: Parameters that have a counterpart (see `our_name`).
        target: The energy whose heads they are.
        rows: Row of each species in the tables of metatrain; by default as they are.

    Raises:
        KeyError: If a parameter has no counterpart.
    """
    converted = {}
    for name, value in weights.items():
        if rows is not None and SPECIES_TABLES.fullmatch(name):
            value = torch.index_select(value, 0, rows)
        converted[our_name(name, target)] = value
    return converted
