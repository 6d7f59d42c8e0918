"""The energies that a checkpoint of metatrain predicts: names, units, baselines, scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pet_mlip.convert.archive import StoredTensor
from pet_mlip.convert.tensormap import Block, read_blocks
from pet_mlip.convert.unpickling import Placeholder
from pet_mlip.errors import UserError

# Of the SI since 2019, as in metatomic; ase.units differs from them by 1e-8.
MOLE = 6.02214076e23 * 1.602176634e-19  # Avogadro's number of eV, in J
# Spellings of units, in lower case; a dataset that names none is read as eV and Å.
ENERGY_UNITS = {
    "ev": 1.0,
    "electronvolt": 1.0,
    "mev": 1e-3,
    "millielectronvolt": 1e-3,
    "hartree": 27.211386245988,
    "rydberg": 13.605693122994,
    "kcal/mol": 4184.0 / MOLE,
    "kj/mol": 1000.0 / MOLE,
}
ANGSTROM = ("angstrom", "a", "å")


@dataclass(frozen=True)
class Target:
    """One energy that the model predicts.

    Attributes:
        name: As in metatrain.
        unit: As in the checkpoint.
        others: Everything else that the model predicts.
    """

    name: str
    unit: str
    others: list[str]

    @property
    def factor(self) -> float:
        """Its unit in eV."""
        return ENERGY_UNITS[self.unit.lower()] if self.unit else 1.0


def choose_target(dataset: Placeholder, head: str | None) -> Target:
    """The target to convert.

    Args:
        dataset: The checkpoint's description of its training data.
        head: Its name; by default ``energy``, or the only energy there is.

    Raises:
        UserError: If there is no such energy, more than one to choose from, or its form or unit is
            not one of an interatomic potential here.
    """
    length = str(dataset.attribute("length_unit") or "")
    if length and length.lower() not in ANGSTROM:
        raise UserError(f"its length unit is {length}; only models in Angstrom can be converted")
    targets: dict[str, Placeholder] = dict(dataset.attribute("targets"))
    energies = [name for name, info in targets.items() if info.attribute("quantity") == "energy"]
    name = choose_name(list(targets), energies, head)
    check_layout(name, targets[name])
    unit = str(targets[name].attribute("unit") or "")
    if unit and unit.lower() not in ENERGY_UNITS:
        raise UserError(
            f"the unit of {name} is {unit}, which is none of eV, meV, Hartree, Rydberg, kcal/mol "
            "and kJ/mol"
        )
    return Target(name, unit, [other for other in targets if other != name])


def choose_name(targets: list[str], energies: list[str], head: str | None) -> str:
    """The name of the target to convert; see `choose_target`."""
    if not energies:
        raise UserError(f"it predicts no energy, only {', '.join(targets) or 'nothing'}")
    if head is None:
        if "energy" not in energies and len(energies) > 1:
            raise UserError(f"it predicts several energies: choose --head {' or '.join(energies)}")
        return "energy" if "energy" in energies else energies[0]
    if head not in energies:
        what = "no energy" if head in targets else "not predicted by it"
        raise UserError(f"--head {head} is {what}; its energies are {', '.join(energies)}")
    return head


def check_layout(name: str, info: Placeholder) -> None:
    """Refuse whatever is not one scalar for each structure or atom."""
    layout = info.attribute("layout")
    blocks = read_blocks(serialized(layout))
    if len(blocks) != 1 or blocks[0].n_components != 0 or len(blocks[0].properties) != 1:
        raise UserError(f"{name} is not one scalar: it has several properties or components")
    fields = blocks[0].samples.dtype.names or ()
    if "first_atom" in fields:
        raise UserError(f"{name} is a property of pairs of atoms, not of atoms or structures")


def serialized(tensor_map: Any) -> bytes:
    """The buffer inside a pickled tensor map."""
    state = tensor_map.state if isinstance(tensor_map, Placeholder) else tensor_map
    if isinstance(state, tuple):
        state = state[0]
    if not isinstance(state, StoredTensor):
        raise ValueError("a tensor map without its numbers")
    return state.load().numpy().tobytes()


def composition_energies(
    weights: dict[str, StoredTensor], target: Target, species: list[int]
) -> dict[int, float]:
    """Energy of each species in eV."""
    name = f"additive_models.0.{target.name}_composition_buffer"
    (block,) = read_blocks(serialized(weights[name]))
    energies = dict(zip(first_column(block), block.values.reshape(-1).tolist(), strict=True))
    absent = set(species) - set(energies)
    if absent:
        raise UserError(f"its baseline lacks the elements {sorted(absent)}")
    return {z: target.factor * float(energies[z]) for z in species}


def energy_scale(
    weights: dict[str, StoredTensor], target: Target, version: int, index: int
) -> float:
    """What the network's output is multiplied by, in eV.

    Args:
        weights: Of the checkpoint.
        target: The energy.
        version: Of the checkpoint.
        index: Place of the target among all, by which the scales went up to version 6.

    Raises:
        UserError: If it differs between species.
    """
    if "scaler.scales" in weights and version < 7:
        scales = weights["scaler.scales"].load().double().numpy()[index : index + 1]
    elif version < 13:
        scales = scale_values(weights[f"scaler.{target.name}_scaler_buffer"])
    else:
        scales = scale_values(weights[f"scaler.{target.name}_per_target_scaler_buffer"])
        scales = scales * scale_values(weights[f"scaler.{target.name}_per_property_scaler_buffer"])
    if not np.all(scales == scales[0]):
        raise UserError(
            f"the scale of {target.name} differs between elements, which has no counterpart here"
        )
    return target.factor * float(scales[0])


def scale_values(buffer: StoredTensor) -> np.ndarray:
    """Scales, one for a structure or one for each species."""
    (block,) = read_blocks(serialized(buffer))
    return np.asarray(block.values, dtype=np.float64).reshape(-1)


def first_column(block: Block) -> list[int]:
    """The first number that tells each sample."""
    names = block.samples.dtype.names
    if not names:
        raise ValueError("samples without names")
    return [int(record[0]) for record in block.samples]
