"""The training of a round, on all labels before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from pet_mlip.config import Config, TrainingConfig
from pet_mlip.config.load import validate
from pet_mlip.data.dispersion import D3
from pet_mlip.errors import UserError
from pet_mlip.learn.config import LearnConfig
from pet_mlip.learn.folder import LearnFolder
from pet_mlip.learn.log import LOG
from pet_mlip.train import run_training
from pet_mlip.train.initial import inherit_model
from pet_mlip.train.setup import FINE_TUNING, RATES, default_batch_size

VALIDATIONS = 20
"""Of a training, about."""
TRAINED = "trained"
"""File that says that a round's training has ended."""


def train_round(
    config: LearnConfig, folder: LearnFolder, number: int, sizes: Sequence[int]
) -> None:
    """Train on all labels before a round, or go on with a training that was killed.

    Args:
        config: Of the learning.
        folder: Of the learning.
        number: Of the round.
        sizes: Numbers of atoms of all training structures.

    Raises:
        TrainingInterrupted: After SIGINT or SIGTERM.
    """
    here = folder.round(number)
    here.mkdir(exist_ok=True)
    if (here / TRAINED).exists():
        return
    output = here / "run"
    LOG.info(
        "Round %d: the model is trained on %d structures; see %s.",
        *(number, len(sizes), output / "train.log"),
    )
    resume = (output / "last.ckpt").exists()
    run_training(
        training_config(config, folder, number, sizes),
        output,
        resume=resume,
        overwrite=not resume,
        quiet=True,
    )
    (here / TRAINED).touch()


def check_training(config: LearnConfig) -> None:
    """Find out before any label is computed whether trainings can be done as they are asked for.

    Raises:
        UserError: Why not.
    """
    trained = inherit_model(_configuration(config, ["labels"], ["labels"], {"epochs": 1}), None)
    if trained.data.subtract is not None:
        D3.parse(trained.data.subtract)
        if config.simulation.engine == "lammps":
            raise UserError(
                f"simulation.engine: lammps does not add {trained.data.subtract}, which is "
                "subtracted from the labels: use simulation.engine: ase."
            )


def training_config(
    config: LearnConfig, folder: LearnFolder, number: int, sizes: Sequence[int]
) -> Config:
    """Write the configuration of a round's training; arguments as for `train_round`."""
    wanted = config.training
    batch_size = wanted.batch_size
    if batch_size == "auto":
        batch_size = default_batch_size(sizes)
    epochs = math.ceil(wanted.steps / math.ceil(len(sizes) / batch_size))
    update: dict[str, Any] = {
        "batch_size": batch_size,
        "epochs": epochs,
        "ema_decay": wanted.ema_decay,
    }
    if "validate_every" not in wanted.model_fields_set:
        update["validate_every"] = max(1, epochs // VALIDATIONS)
    if wanted.warm_start and number > 0:
        update["init_from"] = str(folder.round(number - 1) / "run" / "best.ckpt")
        if wanted.learning_rate == "auto" and wanted.init_from is None:
            # The weights of the round before come from fewer labels still, not from pretraining:
            # there is nothing in them that small steps would have to keep.
            update["learning_rate"] = FINE_TUNING * RATES[wanted.optimizer]
    parts = folder.known_to(number)
    return _configuration(
        config, _files(parts, "train.xyz"), _files(parts, "validation.xyz"), update
    )


def _configuration(
    config: LearnConfig, training: list[str], validation: list[str], update: dict[str, Any]
) -> Config:
    """Make the configuration of a training on these files, with some keys replaced."""
    # What was not given is decided by the data, or by the checkpoint that a training starts from.
    given = config.model_dump(mode="json", exclude_unset=True)
    keys = {k: v for k, v in given.get("training", {}).items() if k in TrainingConfig.model_fields}
    tree: dict[str, Any] = {
        "data": {
            "train": training,
            "validation": validation,
            "test": config.test,
            "baseline": config.baseline,
            "isolated_atoms": config.isolated_atoms,
            **({"subtract": given["subtract"]} if "subtract" in given else {}),
        },
        "training": {**keys, **update},
        **{name: given[name] for name in ("model", "symmetrization", "logging") if name in given},
    }
    return validate(tree, "the configuration of the learning")


def _files(parts: Sequence[Path], name: str) -> list[str]:
    """The files of a name that have structures in them."""
    paths = [part / name for part in parts]
    return [str(path) for path in paths if path.stat().st_size > 0]


def split(
    structures: Sequence[Atoms], validation: float, first: int
) -> tuple[list[Atoms], list[Atoms]]:
    """Divide labelled structures, evenly in their order, into training and validation.

    Args:
        structures: To be divided.
        validation: Part of them that validation gets.
        first: How many at the beginning stay in the training part.
    """
    free = len(structures) - first
    count = min(max(round(validation * len(structures)), 1), free, len(structures) - 1)
    places = {first + math.floor((k + 0.5) * free / count) for k in range(count)}
    training = [atoms for k, atoms in enumerate(structures) if k not in places]
    return training, [structures[k] for k in sorted(places)]
