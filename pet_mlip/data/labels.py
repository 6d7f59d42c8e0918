"""Finding labels in what ASE has read, and bringing them to eV and Å."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from pet_mlip.data.structure import Source, Structure
from pet_mlip.errors import UserError
from pet_mlip.results import Result

Floats = NDArray[np.float64]
Label = Literal["energy", "forces", "stress", "virial"]
AUTO = "auto"

# Looked for when the key is "auto", in this order, after the calculator's results.
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "energy": ("energy",),
    "forces": ("forces", "force"),
    "stress": ("stress",),
    "virial": ("virial", "virials"),
}

ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": units.Hartree,
    "Rydberg": units.Rydberg,
    "kcal/mol": units.kcal / units.mol,
    "kJ/mol": units.kJ / units.mol,
}
LENGTH_UNITS = {"Angstrom": 1.0, "Bohr": units.Bohr, "nm": units.nm}
PRESSURE_UNITS = {"GPa": units.GPa, "kbar": 0.1 * units.GPa, "bar": units.bar}
ORDERS = {"voigt": (0, 1, 2, 3, 4, 5), "vasp": (0, 1, 2, 4, 5, 3)}
"""Where xx yy zz yz xz xy stand among 6 numbers."""
AS_WRITTEN = "as written: "
"""Before the name of a result that a file has in a shape which ASE refuses, in ``info``."""
DERIVED_STRESS = "energy/length^3"

# A stress is symmetric; more asymmetry than this fraction is a mistake in the data.
LARGEST_ASYMMETRY = 0.02


@dataclass(frozen=True)
class LabelKeys:
    """Names of the labels in ``info``, ``arrays`` or calculator results.

    "auto" takes the calculator's result, else the usual names; a name is looked for in ``info``
    and ``arrays`` first, then among the calculator's results; None leaves the label out. The
    virial (-V * stress, an energy) is used where a structure has no stress. Total charge and spin
    multiplicity belong to the structure; one that has none is a neutral singlet.
    """

    energy: str | None = AUTO
    forces: str | None = AUTO
    stress: str | None = AUTO
    virial: str | None = AUTO
    charge: str | None = None
    spin_multiplicity: str | None = None
    results: Mapping[str, Result] = field(default_factory=dict)
    """Other results to be read, in their own units."""
    result_keys: Mapping[str, str | None] = field(default_factory=dict)
    """Names of those that stand under another name in the files; None leaves one out."""


@dataclass(frozen=True)
class DataUnits:
    """Units of the numbers in the files.

    Forces are in energy per length; the stress too, unless a pressure unit is named.
    """

    energy: str = "eV"
    length: str = "Angstrom"
    stress: str = DERIVED_STRESS
    stress_sign: int = 1
    """-1 for stresses that are positive under compression (VASP); ASE's are negative."""
    stress_order: str | None = None
    """Of stresses and virials of 6 numbers: voigt (xx yy zz yz xz xy) or vasp (xx yy zz xy yz zx).

    ASE's own results are voigt in any case. What stands in files elsewhere is refused without an
    order; what is set in Python is voigt without one.
    """

    def __post_init__(self) -> None:
        known: dict[str, list[Any]] = {
            "energy": list(ENERGY_UNITS),
            "length": list(LENGTH_UNITS),
            "stress": [DERIVED_STRESS, *PRESSURE_UNITS],
            "stress_sign": [1, -1],
            "stress_order": [None, *ORDERS],
        }
        for name, allowed in known.items():
            value = getattr(self, name)
            if value not in allowed:
                choices = ", ".join(map(str, allowed))
                raise UserError(f"Unit of {name}: {value!r} is not one of {choices}.")

    @property
    def energy_factor(self) -> float:
        """From the file's energies to eV."""
        return ENERGY_UNITS[self.energy]

    @property
    def length_factor(self) -> float:
        """From the file's lengths to Å."""
        return LENGTH_UNITS[self.length]

    @property
    def forces_factor(self) -> float:
        """From the file's forces to eV/Å."""
        return self.energy_factor / self.length_factor

    @property
    def stress_factor(self) -> float:
        """From the file's stresses to eV/Å^3 in ASE's sign."""
        if self.stress in PRESSURE_UNITS:
            return self.stress_sign * PRESSURE_UNITS[self.stress]
        return self.stress_sign * self.energy_factor / self.length_factor**3


DEFAULT_KEYS = LabelKeys()
DEFAULT_UNITS = DataUnits()


def structure_from_atoms(
    atoms: Atoms,
    keys: LabelKeys = DEFAULT_KEYS,
    data_units: DataUnits = DEFAULT_UNITS,
    source: Source | None = None,
) -> Structure:
    """The structure and its labels; raw results, no constraint is applied to the forces.

    Raises:
        UserError: A label has a wrong shape or is not a number.
    """
    # Files do not say in which order they have 6 numbers; who makes atoms in Python has ASE's.
    order = data_units.stress_order or ("voigt" if source is None else None)
    source = source or Source("memory", 0)
    length = data_units.length_factor
    structure = Structure(
        species=np.array(atoms.numbers, dtype=np.int64),
        positions=length * atoms.positions,
        cell=length * np.array(atoms.cell.array, dtype=np.float64),
        pbc=np.array(atoms.pbc, dtype=bool),
        config_type=_config_type(atoms),
        subtracted=atoms.info.get("subtracted"),
        source=source,
    )
    structure.charge = _integer(atoms, keys.charge, 0, source)
    structure.spin_multiplicity = _integer(atoms, keys.spin_multiplicity, 1, source)
    energy = _find(atoms, "energy", keys.energy, source)
    if energy is not None:
        structure.energy = data_units.energy_factor * _scalar(energy, source)
    forces = _find(atoms, "forces", keys.forces, source)
    if forces is not None:
        forces = _shaped(forces, (len(atoms), 3), "forces", source)
        structure.forces = data_units.forces_factor * forces
    for name, result in keys.results.items():
        values = _result(atoms, name, result, keys, order, source)
        if values is not None:
            (structure.atomic_results if result.per_atom else structure.results)[name] = values
    if np.isfinite(structure.volume):
        structure.stress = _stress(atoms, keys, data_units, order, structure.volume, source)
    return structure


def label_names(atoms: Atoms) -> list[str]:
    """Names under which the atoms carry numbers that might be labels."""
    names = {"numbers", "positions", "unique_id"}
    found = {key for place in _places(atoms) for key in place if isinstance(key, str)}
    return sorted({name.removeprefix(AS_WRITTEN) for name in found} - names)


def _places(atoms: Atoms) -> Iterator[dict[str, Any]]:
    """Where labels may stand, a database row's own columns included."""
    yield atoms.info
    yield atoms.arrays
    for name in ("key_value_pairs", "data"):
        if isinstance(atoms.info.get(name), dict):
            yield atoms.info[name]
    yield _results(atoms)


def _results(atoms: Atoms) -> dict[str, Any]:
    return getattr(atoms.calc, "results", None) or {}


def _result(
    atoms: Atoms,
    name: str,
    result: Result,
    keys: LabelKeys,
    order: str | None,
    source: Source,
) -> Floats | None:
    """The label of a result that is no energy, as it was declared, or None.

    Raises:
        UserError: It has another shape, or a tensor is not symmetric.
    """
    found = _locate(atoms, name, keys.result_keys.get(name, AUTO))
    if found is None:
        return None
    values = _numbers(found.value, found.name, source)
    # With three atoms a shape alone does not tell atoms from components.
    wrong_place = atoms.info if result.per_atom else atoms.arrays
    if found.place is wrong_place and len(atoms) > 1:
        has, says = (
            ("the structure", "of atoms") if result.per_atom else ("each atom", "of structures")
        )
        raise UserError(
            f"{source}: '{found.name}' stands in the file with a value of {has}, but {name} is "
            f"declared to be {says} (model.results.{name}.per_atom)."
        )
    n = (len(atoms),) if result.per_atom else ()
    sixes = [(*n, 6)] if result.per_atom and len(atoms) != 1 else [(*n, 6), (1, 6)]
    if result.rank == 2 and values.shape in sixes:
        by_ase = found.place is _results(atoms)
        rows = values.reshape(-1, 6)
        full = [_from_six(row, found.name, "voigt" if by_ase else order, source) for row in rows]
        return np.array(full).reshape(*n, 3, 3)
    shape = (*n, *result.shape)
    flat = (*n, 9) if result.rank == 2 else shape
    if values.shape not in (shape, flat, (1, *shape), (1, *flat), (*shape, 1)):
        raise UserError(
            f"{source}: '{found.name}' has shape {values.shape}, but {name} is declared with shape "
            f"{shape} here (model.results: rank {result.rank}, "
            f"{'of atoms' if result.per_atom else 'of the structure'})."
        )
    values = values.reshape(shape)
    if result.rank == 2:
        values = _symmetric(values, name, source)
    return values


def _find(atoms: Atoms, label: Label, key: str | None, source: Source) -> Floats | None:
    """The label's numbers as they stand in the file, or None."""
    found = _locate(atoms, label, key)
    return None if found is None else _numbers(found.value, found.name, source)


class _Found(NamedTuple):
    """A label, and where it stands."""

    name: str
    value: Any
    place: dict[str, Any]


def _locate(atoms: Atoms, label: str, key: str | None) -> _Found | None:
    if key is None:
        return None
    names = USUAL_NAMES.get(label, (label,)) if key == AUTO else (key,)
    places = list(_places(atoms))
    if key == AUTO:
        places = [places[-1], *places[:-1]]
    for place in places:
        for name in names:
            for written in (name, AS_WRITTEN + name):
                if place.get(written) is not None:
                    return _Found(name, place[written], place)
    return None


def _numbers(value: Any, name: str, source: Source) -> Floats:
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{source}: '{name}' holds {value!r}, which is not numbers.") from None


def _integer(atoms: Atoms, key: str | None, default: int, source: Source) -> int:
    if key is None:
        return default
    values = [place[key] for place in _places(atoms) if place.get(key) is not None]
    if not values:
        return default
    number = _numbers(values[0], key, source)
    if number.size != 1 or number.reshape(()) != np.round(number.reshape(())):
        raise UserError(f"{source}: '{key}' holds {values[0]!r}, which is not one whole number.")
    return int(number.reshape(()))


def _scalar(value: Floats, source: Source) -> float:
    if value.size != 1:
        raise UserError(
            f"{source}: the energy has shape {value.shape} instead of being one number; choose "
            "another energy key (per-atom energies are no total energy)."
        )
    return float(value.reshape(()))


def _shaped(value: Floats, shape: tuple[int, ...], label: str, source: Source) -> Floats:
    if value.size != np.prod(shape):
        raise UserError(f"{source}: the {label} have shape {value.shape} instead of {shape}.")
    return value.reshape(shape)


def _stress(
    atoms: Atoms,
    keys: LabelKeys,
    data_units: DataUnits,
    order: str | None,
    volume: float,
    source: Source,
) -> Floats | None:
    stress = _find_tensor(atoms, "stress", keys.stress, order, source)
    if stress is not None:
        return data_units.stress_factor * stress
    virial = _find_tensor(atoms, "virial", keys.virial, order, source)
    if virial is not None and keys.stress is not None:
        return -data_units.energy_factor / volume * virial
    return None


def _find_tensor(
    atoms: Atoms, label: Label, key: str | None, order: str | None, source: Source
) -> Floats | None:
    """A stress or virial, symmetric (3, 3), from 9 numbers, or from 6 in an order that is known."""
    found = _locate(atoms, label, key)
    if found is None:
        return None
    value = _numbers(found.value, found.name, source)
    if found.place is atoms.arrays:  # The first axis is that of the atoms.
        value = value.reshape(len(atoms), -1)
    if value.ndim == 2 and len(value) == 1:
        value = value[0]
    by_ase = found.place is _results(atoms)
    if value.shape == (6,):
        return _from_six(value, found.name, "voigt" if by_ase else order, source)
    per_atom = found.place is atoms.arrays and len(atoms) > 1
    if value.shape not in ((9,), (3, 3)) or per_atom:
        raise UserError(
            f"{source}: the {label} has shape {value.shape}; it must hold 3 x 3 numbers, or 6 "
            "numbers for the whole structure."
        )
    return _symmetric(value.reshape(3, 3), label, source)


def _from_six(value: Floats, name: str, order: str | None, source: Source) -> Floats:
    if order is None:
        raise UserError(
            f"{source}: '{name}' has 6 numbers, whose order is not known: set "
            "data.units.stress_order (eval: --stress-order) to voigt for xx yy zz yz xz xy "
            "(ASE), or vasp for xx yy zz xy yz zx; null for the key leaves it out."
        )
    xx, yy, zz, yz, xz, xy = value[list(ORDERS[order])]
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _symmetric(full: Floats, label: str, source: Source) -> Floats:
    """The symmetric part of tensors (..., 3, 3); refuse more asymmetry than round-off explains."""
    turned = full.swapaxes(-1, -2)
    asymmetry = np.abs(full - turned).max(initial=0.0)
    if asymmetry > LARGEST_ASYMMETRY * np.abs(full).max(initial=0.0) + 1e-10:
        raise UserError(
            f"{source}: the {label} is not symmetric (off by {asymmetry:.3g}); if that is meant, "
            "put its symmetric part into the file."
        )
    return 0.5 * (full + turned)


def _config_type(atoms: Atoms) -> str | None:
    for place in _places(atoms):
        value = place.get("config_type")
        if value is not None:
            return str(value)
    return None
