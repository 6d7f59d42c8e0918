"""What may change between a training and its continuation."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pet_mlip.config import Config
from pet_mlip.config.differences import differences
from pet_mlip.errors import UserError
from pet_mlip.train.output import LOG
from pet_mlip.train.schedule import Progress

FREE = ("data.root", "data.workers", "data.test", "training.", "logging.", "size")
"""Keys that may change; the widths that a size stands for are compared under `model`."""
NAMES = ("data.train", "data.validation", "data.isolated_atoms")
"""Keys that say where the data are, which may change where the data themselves are compared."""
FIXED = (
    "training.seed",
    "training.optimizer",
    "training.batch_size",
    "training.max_atoms_per_batch",
    "training.precision",
    "training.init_from",
    "training.freeze",
    "training.add_species",
    "training.drop_species",
    "training.loss.",
)
"""Exceptions: with other values it would not be the same training."""


def restore_progress(saved: dict[str, Any]) -> Progress:
    """Progress of the training to be resumed.

    Raises:
        UserError: It was begun by another version of this package.
    """
    if set(saved) != {field.name for field in fields(Progress)}:
        raise UserError(
            "This training was begun by another version of pet_mlip, which counted its progress in "
            "other ways, and cannot be resumed by this one; start a new one in another --output, "
            "with training.init_from to start from its weights."
        )
    return Progress(**saved)


def check_same_training(config: Config, before: dict[str, Any], data_compared: bool) -> None:
    """Compare the configuration with that of the training to be resumed.

    Args:
        config: Of the continuation.
        before: Of the training so far.
        data_compared: Whether the data are compared as well, so that names of files do not count.

    Raises:
        UserError: naming the keys that cannot change.
    """
    changes = list(differences(before, config.to_dict()))
    for path, old, new in changes:
        LOG.info("%s was %r and is %r now.", path, old, new)
    wrong = [
        f"{path} (was {old!r}, is {new!r})"
        for path, old, new in changes
        if not (_free(path) or (data_compared and path in NAMES))
    ]
    if wrong:
        raise UserError(
            f"This configuration is not the one of the training to resume: {', '.join(wrong)}; use "
            "its config.yaml, or another --output for a new training (with training.init_from to "
            "start from its weights)."
        )


def _free(path: str) -> bool:
    return path.startswith(FREE) and not path.startswith(FIXED)
