"""Checkpoints of metatrain's PET, versions 1 to 16, brought to the form of the last one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pet_mlip.convert.archive import StoredTensor
from pet_mlip.convert.unpickling import Placeholder
from pet_mlip.errors import UserError

NEWEST = 16

# Species tables had a row for padding, the last one, up to version 7.
SPECIES_TABLES = re.compile(
    r"(embedding|node_embedding|gnn_layers\.\d+\.(node|neighbor)_embedder)\.weight"
)
RENAMED_IN_8 = [
    (r"embedding\.weight", "edge_embedder.weight"),
    (r"node_embedding\.weight", "node_embedders.0.weight"),
    (r"gnn_layers\.(\d+)\.node_embedder\.weight", r"node_embedders.\1.weight"),
    (r"(gnn_layers\..+\.mlp)\.0\.(.+)", r"\1.w_in.\2"),
    (r"(gnn_layers\..+\.mlp)\.3\.(.+)", r"\1.w_out.\2"),
    (r"combination_rmsnorms\.(.+)", r"combination_norms.\1"),
]


@dataclass
class Contents:
    """What a checkpoint says about a model, whatever its version.

    Attributes:
        version: That of the file.
        hypers: Hyperparameters under the names of the last version.
        weights: Parameters and buffers under the names of the last version, without ``backend.``.
        finetuning: How it was fine-tuned; empty if it was not.
        dataset: Description of the training data, a `Placeholder`.
        epoch: Of the weights, if it is known.
    """

    version: int
    hypers: dict[str, Any]
    weights: dict[str, StoredTensor]
    finetuning: dict[str, Any]
    dataset: Placeholder
    epoch: int | None


def read_contents(checkpoint: dict[str, Any]) -> Contents:
    """The weights that metatrain would export, with names and hyperparameters of today.

    Raises:
        UserError: If the version is not known.
        KeyError: If something is missing in it.
    """
    version = checkpoint.get("model_ckpt_version")
    # Checkpoints from before there were versions are like those of version 1.
    version = 1 if version is None else int(version)
    if version > NEWEST:
        raise UserError(
            f"its checkpoint version, {version}, is newer than this pet_mlip knows (up to "
            f"{NEWEST}); update pet_mlip"
        )
    if version < 1:
        raise UserError(f"its checkpoint version, {version}, does not exist")
    last, best = checkpoint["model_state_dict"], checkpoint.get("best_model_state_dict")
    # The large models of that time were meant to be used as they were at the end of the training.
    large = version < 8 and "node_embedding.weight" in last
    state = dict(last if large or not best else best)
    in_training = checkpoint.get("train_hypers")
    places = (
        state.pop("finetune_config", None),
        last.get("finetune_config"),
        in_training.get("finetune") if isinstance(in_training, dict) else None,
    )
    return Contents(
        version,
        upgraded_hypers(dict(checkpoint["model_data"]["model_hypers"]), version, large),
        upgraded_weights(state, version),
        next((found for found in places if isinstance(found, dict) and found), {}),
        checkpoint["model_data"]["dataset_info"],
        checkpoint.get("epoch" if large or not best else "best_epoch"),
    )


def upgraded_hypers(hypers: dict[str, Any], version: int, large: bool) -> dict[str, Any]:
    """Hyperparameters with those that were added later, as they were implied before.

    Args:
        hypers: As in the checkpoint.
        version: Of the checkpoint.
        large: Whether it is one of the large models from before version 8.
    """
    width = hypers["d_pet"]
    if large:
        hypers |= {
            "normalization": "RMSNorm",
            "activation": "SwiGLU",
            "d_node": 4 * width,
            "transformer_type": "PreLN",
            "featurizer_type": "feedforward",
            "d_feedforward": 2 * width,
        }
    added: list[tuple[int, dict[str, Any]]] = [
        (
            8,
            {
                "normalization": "LayerNorm",
                "activation": "SiLU",
                "d_node": width,
                "transformer_type": "PostLN",
                "featurizer_type": "residual",
            },
        ),
        (10, {"num_neighbors_adaptive": None, "cutoff_function": "Cosine"}),
        (11, {"attention_temperature": 1.0}),
        (12, {"adaptive_cutoff_method": "grid"}),
        (14, {"cutoff_width_adaptive": hypers["cutoff_width"]}),
        (15, {"system_conditioning": False, "max_charge": 10, "max_spin_multiplicity": 10}),
    ]
    for since, values in added:
        if version < since:
            hypers = {**values, **hypers}
    return hypers


def upgraded_weights(state: dict[str, StoredTensor], version: int) -> dict[str, StoredTensor]:
    """Parameters and buffers under the names of the last version, without ``backend.``."""
    weights = {}
    for old, value in state.items():
        name = old.removeprefix("backend.") if version >= 16 else old
        if version < 8:
            if SPECIES_TABLES.fullmatch(name):
                value = without_last_row(value)
            name = renamed_in_8(name)
        weights[name] = value
    return weights


def renamed_in_8(name: str) -> str:
    """The name of a parameter of version 7 in version 8."""
    for pattern, replacement in RENAMED_IN_8:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return name


def without_last_row(table: StoredTensor) -> StoredTensor:
    """All rows but the last."""
    rows, *rest = table.shape
    return StoredTensor(table.storage, table.offset, (max(rows - 1, 0), *rest), table.strides)
