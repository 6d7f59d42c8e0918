"""Checkpoints: plain tensors, numbers and text, written atomically, loaded without pickled code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.files import replacing
from pet_mlip.network.uncertainty import Posterior
from pet_mlip.weights import CHECKPOINT, find_weights, or_shipped

KIND = "pet_mlip checkpoint"
FORMAT_VERSION = 8
"""2: the average over frames is taken in the embedding, and parameters have other names. 3: the
pairs of `closest_pairs` have another cost, and there are results beside the energy. 4: there is the
neighbour density, few channels see directions, and frames have a switch of their own. 5: there is
one ensemble. 6: its frames have a margin. 7: labels may lack a part of the energy. 8: uncertainties
grow faster far from the training data."""
OLDEST_VERSION = 6
"""That is read."""


def write_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write a file that is either the old or the new one, whenever the process is killed."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save({"kind": KIND, "format_version": FORMAT_VERSION, **content}, file)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, its tensors on the CPU.

    Args:
        path: A file, or the name of weights that come with the package.

    Raises:
        UserError: if the file is missing, cut short, something else, or of another version.
    """
    path = find_weights(path, CHECKPOINT)
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}; {or_shipped()}.")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is no pet_mlip checkpoint, or it is cut short.")
    if _is_torchscript(path):
        raise UserError(f"{path} is an exported model; give last.ckpt or best.ckpt of a training.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "unreadable"
        raise UserError(
            f"{path} is damaged or no pet_mlip checkpoint ({reason}); one of metatrain becomes one "
            "with `pet-mlip convert`."
        ) from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise UserError(f"{path} is a file of another program, not a pet_mlip checkpoint.")
    if content["format_version"] > FORMAT_VERSION:
        raise UserError(
            f"{path} was written by pet_mlip {content.get('package_version', '(newer)')}, whose "
            "checkpoints this version cannot read; upgrade pet_mlip."
        )
    if content["format_version"] < OLDEST_VERSION:
        converted = "converted_from" in content.get("summary", {})
        remedy = "convert metatrain's checkpoint again" if converted else "train again"
        raise UserError(
            f"{path} was written by an earlier version of pet_mlip, whose network or whose frames "
            f"are others than this version's; {remedy}."
        )
    if content["format_version"] < 7 and "potential" in content:
        # The last of these versions kept it there.
        content["potential"]["subtracted"] = content["summary"].get("subtracted")
    if content["format_version"] < 8 and "uncertainty" in content:
        mean = content["uncertainty"]["mean"]
        content["uncertainty"]["typical"] = torch.full_like(mean[:, 0], torch.inf)
    content["format_version"] = FORMAT_VERSION  # which is what it is now
    return content


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())


def load_checkpoint(path: str | Path) -> tuple[Potential, dict[str, Any], dict[str, Any]]:
    """Load a checkpoint of a training.

    Args:
        path: The file, or the name of weights that come with the package.

    Returns:
        The potential with averaged (EMA) weights, the configuration, and a summary of the training.

    Raises:
        UserError: The file is missing, cut short, no checkpoint, or of another version.
    """
    content = read_checkpoint(path)
    return restore_potential(content, "average"), content["config"], content["summary"]


def restore_potential(content: dict[str, Any], which: str) -> Potential:
    """A potential in the dtype it was trained in.

    Args:
        content: From `read_checkpoint`.
        which: ``average`` (EMA) or ``weights`` (the optimiser's).
    """
    with torch.random.fork_rng(devices=[]):
        potential = Potential.from_config(content["potential"])
    potential.set_dtype(getattr(torch, content["dtype"]))
    potential.load_state_dict(content[which])
    if which == "average" and "uncertainty" in content:
        potential.uncertainty.set(Posterior(**content["uncertainty"]))
    return potential.eval()
