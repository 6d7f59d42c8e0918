"""A checkpoint of metatrain's PET as a potential, without metatrain."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pet_mlip.convert.archive import Archive, StoredTensor, open_archive
from pet_mlip.convert.hypers import convert_hypers
from pet_mlip.convert.llpr import KEPT, LEFT_OUT, read_uncertainty
from pet_mlip.convert.targets import Target, choose_target, composition_energies, energy_scale
from pet_mlip.convert.unpickling import Placeholder
from pet_mlip.convert.upgrade import Contents, read_contents
from pet_mlip.convert.weights import (
    WITHOUT_COUNTERPART,
    convert_weights,
    has_lora,
    is_left_out,
    is_of_network,
    merge_lora,
)
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.train.checkpoint import KIND


@dataclass(frozen=True)
class Converted:
    """A potential and where it came from.

    Attributes:
        potential: The network is in the checkpoint's precision, or in float64 where low-rank
            corrections were added to its weights.
        dtype: The checkpoint's precision: ``float32`` or ``float64``.
        source: Plain JSON types: file, its SHA-256, what it held, and what was left out.
        notes: What a user should know about the conversion, one sentence each.
    """

    potential: Potential
    dtype: str
    source: dict[str, Any]
    notes: list[str]


def convert(path: str | Path, head: str | None = None) -> Converted:
    """Read a checkpoint of metatrain's PET (versions 1 to 16, also compressed with gzip).

    Nothing in the file is executed, and metatrain is not needed. The weights are those that
    metatrain would export.

    Args:
        path: The checkpoint.
        head: Which energy to convert; by default ``energy``, or the only energy there is.

    Raises:
        UserError: If the file is missing, damaged, something else, or needs what has no
            counterpart here.
    """
    path = Path(path)
    with open_archive(path) as archive:
        checkpoint = read_metatrain(archive)
        try:
            return _convert(path, checkpoint, head)
        except UserError as error:
            if str(path) in str(error):
                raise
            reason = str(error).rstrip(".")
            raise UserError(f"{path} cannot be converted: {reason}.") from None
        except (LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else "nothing known"
            raise archive.damaged(f"{type(error).__name__}: {reason}") from None


def is_metatrain(path: str | Path) -> bool:
    """Tell whether a file is a checkpoint of metatrain, of whatever architecture."""
    try:
        with open_archive(path) as archive:
            content = archive.content() if not archive.is_torchscript else None
    except UserError:
        return False
    return isinstance(content, dict) and "architecture_name" in content


def read_metatrain(archive: Archive) -> dict[str, Any]:
    """The content of a checkpoint of metatrain.

    Raises:
        UserError: If it is something else.
    """
    path = archive.path
    if archive.is_torchscript:
        if archive.holds("extra/pet_mlip.json"):
            raise UserError(f"{path} is an exported model of pet_mlip already.")
        raise UserError(
            f"{path} is an exported model with its code; give the checkpoint (.ckpt) that it was "
            "exported from."
        )
    content = archive.content()
    if isinstance(content, dict) and content.get("kind") == KIND:
        raise UserError(f"{path} is a checkpoint of pet_mlip already; see `pet-mlip export`.")
    if not isinstance(content, dict) or "architecture_name" not in content:
        raise UserError(f"{path} is a file of another program, not a checkpoint of metatrain.")
    return content


def _convert(path: Path, checkpoint: dict[str, Any], head: str | None) -> Converted:
    notes = []
    architecture = checkpoint["architecture_name"]
    wrapper = checkpoint if architecture == "llpr" else None
    if wrapper is not None:
        checkpoint = wrapper["wrapped_model_checkpoint"]
    if checkpoint["architecture_name"] != "pet":
        raise UserError(
            f"its architecture is {checkpoint['architecture_name']}; only PET can be converted"
        )
    contents = read_contents(checkpoint)
    target = choose_target(contents.dataset, head)
    if target.others:
        notes.append(f"Left out, for not being {target.name}: {', '.join(target.others)}.")
    if not target.unit:
        notes.append(f"It names no unit of {target.name}: eV is assumed.")
    if not contents.dataset.attribute("length_unit"):
        notes.append("It names no unit of length: Å is assumed.")
    potential, dtype = build_potential(contents, target)
    if wrapper is not None:
        n_species = len(potential.species)
        uncertainty = read_uncertainty(wrapper, target, potential.pet.last_size, n_species)
        if uncertainty is not None:
            potential.uncertainty.set(uncertainty)
        notes.insert(0, LEFT_OUT if uncertainty is None else KEPT)
    source = {
        "file": path.name,
        "sha256": sha256(path),
        "package": "metatrain",
        "architecture": architecture if architecture == "pet" else f"{architecture} around pet",
        "checkpoint_version": contents.version,
        "epoch": contents.epoch if isinstance(contents.epoch, int) else None,
        "head": target.name,
        "energy_unit": target.unit or "eV (assumed)",
        "left_out": target.others,
        "references": references(checkpoint.get("metadata")),
    }
    return Converted(potential, dtype, source, notes)


def build_potential(contents: Contents, target: Target) -> tuple[Potential, str]:
    """The potential, and the dtype of the network in the checkpoint; see `Converted`.

    Raises:
        UserError: If something has no counterpart.
    """
    weights = dict(contents.weights)
    hypers = convert_hypers(contents.hypers, target)
    species, rows = species_rows(weights["species_to_species_index"].load())
    names = list(contents.dataset.attribute("targets"))
    composition = composition_energies(weights, target, species)
    scale = energy_scale(weights, target, contents.version, names.index(target.name))

    used = [name for name in weights if is_of_network(name, target.name)]
    consumed = baseline_names(target)
    rest = [name for name in weights if name not in used and name not in consumed]
    strange = [
        n for n in rest if not is_left_out(n, target.others, bool(contents.hypers.get("zbl")))
    ]
    if strange:
        raise UserError(f"{listed(strange)} without a counterpart here, in its weights")
    stored = {name: weights[name] for name in used}
    name, lora = network_dtype(stored), has_lora(stored)
    dtype = torch.float64 if lora else getattr(torch, name)
    network = {name: value.load().to(dtype) for name, value in stored.items()}
    if lora:
        network = merge_lora(network, contents.finetuning)

    plain = SymmetrizationHypers(ensemble="none", train="structure")
    with torch.random.fork_rng(devices=[]):
        potential = Potential(species, hypers, plain).set_dtype(dtype)
    load_network(potential, convert_weights(network, target.name, rows))
    potential.set_baseline(composition, scale)
    if hypers.zbl:
        # Tabulated constants, but as far as the checkpoint's precision reaches.
        radii = weights["additive_models.1.covalent_radii"].load().double()
        index = weights["additive_models.1.species_to_index"].load().long()
        potential.preparation.repulsion.radii.copy_(radii[index[torch.tensor(species)]])
    return potential.eval(), name


def load_network(potential: Potential, weights: dict[str, Tensor]) -> None:
    """Set the weights of the network, all of them.

    Raises:
        UserError: If some are missing, superfluous or of another shape.
    """
    try:
        missing, strange = potential.pet.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"its weights do not fit its hyperparameters: {reason}") from None
    lost = [name for name in missing if not WITHOUT_COUNTERPART.fullmatch(name)]
    if lost or strange:
        raise UserError(
            "its weights do not fit its hyperparameters: "
            f"missing {listed(lost) or 'none'}, superfluous {listed(strange) or 'none'}"
        )


def species_rows(index: Tensor) -> tuple[list[int], Tensor]:
    """Atomic numbers in ascending order, and the row of each in the checkpoint's tables."""
    species = torch.nonzero(index >= 0).flatten()
    return species.tolist(), index[species]


def baseline_names(target: Target) -> set[str]:
    """Names of the buffers that make the baseline and the scale of a target."""
    scales = ("scaler_buffer", "per_target_scaler_buffer", "per_property_scaler_buffer")
    return {
        f"additive_models.0.{target.name}_composition_buffer",
        "scaler.scales",
        *(f"scaler.{target.name}_{name}" for name in scales),
    }


def network_dtype(weights: dict[str, StoredTensor]) -> str:
    """The precision to keep the network in."""
    wide = any(value.storage.dtype == torch.float64 for value in weights.values())
    return "float64" if wide else "float32"


def references(metadata: Any) -> list[str]:
    """The publications that a checkpoint asks to cite."""
    state = metadata.state if isinstance(metadata, Placeholder) else None
    if not isinstance(state, tuple) or not isinstance(state[0], str):
        return []
    found = json.loads(state[0]).get("references", {})
    return [str(text) for texts in found.values() for text in texts]


def listed(names: list[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def sha256(path: Path) -> str:
    """Digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
