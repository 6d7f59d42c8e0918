"""Hyperparameters of metatrain's PET as those of this package."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from pet_mlip.convert.targets import Target
from pet_mlip.convert.unpickling import Placeholder
from pet_mlip.errors import UserError
from pet_mlip.graph.hypers import PETHypers

AS_METATRAIN = {"num_radial": 0, "density_channels": 0, "direction_share": 1.0}
"""What of our own is switched off in metatrain's network."""
OURS_ALONE = {*AS_METATRAIN, "density_degree", "density_bound"}
# What can be switched off, and the settings that then have no effect.
SWITCHES = {
    "num_neighbors_adaptive": ("adaptive_cutoff_method", "cutoff_width_adaptive"),
    "system_conditioning": ("max_charge", "max_spin_multiplicity"),
    "zbl": (),
}


def convert_hypers(hypers: dict[str, Any], target: Target) -> PETHypers:
    """The architecture that a checkpoint describes.

    Args:
        hypers: Of the checkpoint, with the names of the last version.
        target: The energy to convert.

    Raises:
        UserError: If something has no counterpart.
    """
    hypers = dict(hypers)
    if is_enabled(hypers.pop("long_range", None)):
        raise UserError("it has long-range features, which have no counterpart here")
    # metatrain's repulsion is in eV and leaves energies of other units alone.
    hypers["zbl"] = bool(hypers.get("zbl", False)) and target.unit == "eV"
    for switch, settings in SWITCHES.items():
        if hypers.get(switch) in (None, False):
            for name in (switch, *settings):
                hypers.pop(name, None)
    known = PETHypers.model_fields
    strange = [name for name in hypers if name not in known or name in OURS_ALONE]
    if strange:
        raise UserError(
            f"its hyperparameters {', '.join(strange)} have no counterpart here; a newer pet_mlip "
            "may know them"
        )
    try:
        return PETHypers(**hypers, **AS_METATRAIN)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"its hyperparameters are not valid here: {where} {first['msg']}") from None


def is_enabled(long_range: Any) -> bool:
    """Whether the settings of the long-range features switch them on."""
    if isinstance(long_range, Placeholder):
        return True
    return bool(long_range) and bool(dict(long_range).get("enable"))
