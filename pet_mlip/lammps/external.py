"""Drives LAMMPS from Python through `fix external`, where no plugin can be compiled."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.export import LoadedModel

Floats = NDArray[np.float64]
# Energy units in one eV; LAMMPS converts kcal/mol with this number.
UNITS = {"metal": 1.0, "real": 23.060549}
IN_GROUP_ALL = 1
"""Bit of LAMMPS' group of all atoms in their masks."""
COMMANDS = ("command", "commands_list", "commands_string", "file")


class Attached:
    """A model that acts in an instance of LAMMPS; `attach` makes it.

    `calls` counts the evaluations. `calculator` holds the model; its `info` describes the last
    call.
    """

    def __init__(
        self, lmp: Any, calculator: PETCalculator, numbers: Sequence[int], fix_id: str
    ) -> None:
        self.calculator = calculator
        self.calls = 0
        self._lmp = lmp
        self._fix_id = fix_id
        self._unit = UNITS[lmp.extract_global("units")]
        self._number_of_type = np.array([0, *numbers])
        self._error: Exception | None = None

    def detach(self) -> None:
        """Remove the model's fix from LAMMPS."""
        self._lmp.command(f"unfix {self._fix_id}")
        self._lmp._pet_mlip_attached.pop(self._fix_id, None)

    def callback(
        self, caller: Any, step: int, n_atoms: int, ids: Any, positions: Floats, forces: Floats
    ) -> None:
        """What LAMMPS calls in every step. Exceptions stop the run, and are raised after it."""
        forces[:] = 0.0
        if self._error is not None:
            return
        try:
            self._evaluate(n_atoms, ids, positions, forces)
        except Exception as error:
            self._error = error
            self._lmp.force_timeout()

    def _evaluate(self, n_atoms: int, ids: Any, positions: Floats, forces: Floats) -> None:
        lmp = self._lmp
        if n_atoms != lmp.get_natoms():
            raise UserError("Atoms got lost: LAMMPS has fewer than at the start of the run.")
        if lmp.extract_global("respa_levels"):
            raise UserError(
                "run_style respa evaluates an attached model at the start of a run only: use "
                "run_style verlet, or pair_style pet (`pet-mlip lammps build`), which works with "
                "respa."
            )
        if not (lmp.numpy.extract_atom("mask")[:n_atoms] & IN_GROUP_ALL).all():
            raise UserError(
                "Some atoms are excluded from group all, as by fix gcmc while it tries to delete "
                "them; an attached model cannot leave them out: use pair_style pet (`pet-mlip "
                "lammps build`)."
            )
        self._check_dispersion()
        types = lmp.numpy.extract_atom("type")[:n_atoms]
        # LAMMPS sorts atoms now and then; by ID they keep their places in the neighbour list.
        order = np.argsort(ids[:n_atoms], kind="stable")
        low, cell, periodic = self._box()
        atoms = Atoms(
            numbers=self._number_of_type[types[order]],
            positions=positions[order] - low,
            cell=cell,
            pbc=periodic,
        )
        self.calculator.calculate(atoms, ["energy", "forces", "stress"])
        results = self.calculator.results
        forces[order] = self._unit * results["forces"]
        virial = -self._unit * abs(atoms.get_volume()) * results["stress"]
        xx, yy, zz, yz, xz, xy = virial
        lmp.fix_external_set_energy_global(self._fix_id, self._unit * results["energy"])
        lmp.fix_external_set_virial_global(self._fix_id, [xx, yy, zz, xy, xz, yz])
        self.calls += 1

    def _check_dispersion(self) -> None:
        """Refuse what would add D3 more or less often than once, if it has to be added."""
        subtracted = self.calculator.metadata.subtracted
        if subtracted is None:
            return
        others = _count_pair_styles(self._lmp, "dispersion/d3")
        if self.calculator.d3 is not None and others > 0:
            raise UserError(
                f"pair_style dispersion/d3 acts beside the attached model, which adds {subtracted} "
                "itself: remove it, or use attach(..., d3=False)."
            )
        if self.calculator.d3 is None and others != 1:
            raise UserError(
                f"The attached model learned labels without {subtracted}, which one pair_style "
                f"dispersion/d3 has to add, but there are {others}; or leave out d3=False."
            )

    def _box(self) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Corner, cell vectors in rows, and periodicity."""
        low, high, xy, yz, xz, periodic, _ = self._lmp.extract_box()
        cell = np.diag(np.subtract(high, low))
        cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
        return np.array(low), cell, np.array(periodic, dtype=bool)

    def raise_pending(self) -> None:
        """Raise what went wrong in a run, if anything did.

        Raises:
            UserError: The structure cannot be evaluated.
        """
        error, self._error = self._error, None
        if error is not None:
            # Otherwise LAMMPS skips every run from now on.
            self._lmp.command("timer timeout off")
            raise error


def attach(
    lmp: Any,
    model: str | os.PathLike[str] | LoadedModel,
    elements: Sequence[str],
    *,
    device: str = "auto",
    dtype: str | None = None,
    chunk_size: int | None = None,
    skin: float = 0.5,
    fix_id: str = "pet",
    d3: bool = True,
) -> Attached:
    """Let a model act on all atoms of a LAMMPS instance, without any compiled plugin.

    It takes the place of a pair style: use `pair_style none`, or another style that shall act too.
    Box and atom types must be defined. Any box will do, periodic or not, triclinic or not;
    energies, forces and virial enter LAMMPS as those of `fix external`, so that thermodynamic
    output, barostats and minimizers see them (per-atom energies and virials do not). If a step
    cannot be evaluated, LAMMPS stops the run, and the command that started it raises the reason.

    Args:
        lmp: A `lammps.lammps`, on one rank.
        model: Path of an exported model, or what `pet_mlip.export.load_model` returned.
        elements: Chemical symbol of each atom type, in order.
        device: "auto", "cpu" or "cuda[:N]".
        dtype: As for `PETCalculator`.
        chunk_size: As for `PETCalculator`.
        skin: Distance in Å by which the neighbour list reaches beyond the cutoff.
        fix_id: Name of the fix; attaching again under the same name replaces the model.
        d3: Whether to add D3 where it was subtracted from the labels (extra `d3`); False where
            `pair_style dispersion/d3` does.

    Returns:
        The attached model; `detach` removes it.

    Raises:
        UserError: LAMMPS runs on several ranks, has no box, other units than metal or real, or
            another number of atom types than `elements`; the model is missing or does not know an
            element. In a run: with `run_style respa`, with atoms that `fix gcmc` has excluded, or
            if D3 has to be added and would be twice or not at all.
    """
    _check_lammps(lmp)
    numbers = [_atomic_number(symbol) for symbol in elements]
    n_types = lmp.extract_setting("ntypes")
    if len(numbers) != n_types:
        raise UserError(f"elements has {len(numbers)} names, but LAMMPS has {n_types} atom types.")
    calculator = PETCalculator(model, device, dtype, skin, chunk_size, d3=d3)
    for number in numbers:
        if number not in calculator.metadata.species:
            known = ", ".join(chemical_symbols[z] for z in calculator.metadata.species)
            raise UserError(
                f"elements: the model does not know {chemical_symbols[number]}; it knows {known}."
            )
    attached = Attached(lmp, calculator, numbers, fix_id)
    if fix_id in lmp.available_ids("fix"):
        lmp.command(f"unfix {fix_id}")
    lmp.command(f"fix {fix_id} all external pf/callback 1 1")
    lmp.command(f"fix_modify {fix_id} energy yes virial yes")
    lmp.set_fix_external_callback(fix_id, attached.callback, lmp)
    _raise_after_commands(lmp)[fix_id] = attached
    return attached


def _check_lammps(lmp: Any) -> None:
    ranks = lmp.extract_setting("world_size")
    if ranks != 1:
        raise UserError(
            f"attach works on one rank, but LAMMPS runs on {ranks}; use pair_style pet (`pet-mlip "
            "lammps build`) for more."
        )
    if not lmp.extract_setting("box_exist"):
        raise UserError("LAMMPS has no box yet: call attach after create_box or read_data.")
    units = lmp.extract_global("units")
    if units not in UNITS:
        raise UserError(f"attach works in units metal or real, not in units {units}.")


def _count_pair_styles(lmp: Any, name: str) -> int:
    """Count the pair styles of a name that act in the run, alone or in a hybrid; 2 for more."""
    first, second = (lmp.find_pair_neighlist(name, nsub=k) for k in (1, 2))
    if first >= 0:
        return 1 if second == first else 2  # a single one is found by any number
    # Some releases take it for an error, which the next call of the library would raise.
    lmp.lib.lammps_get_last_error_message(lmp.lmp, ctypes.create_string_buffer(64), 64)
    return 0


def _atomic_number(symbol: str) -> int:
    number = atomic_numbers.get(symbol, 0)
    if number == 0:
        raise UserError(f"elements: {symbol!r} is not a chemical symbol.")
    return int(number)


def _raise_after_commands(lmp: Any) -> dict[str, Attached]:
    """Let an instance's commands raise what callbacks cannot raise through LAMMPS' C++.

    Returns:
        The models by the names of their fixes, to be filled.
    """
    known: dict[str, Attached] | None = getattr(lmp, "_pet_mlip_attached", None)
    if known is not None:
        return known
    models: dict[str, Attached] = {}
    lmp._pet_mlip_attached = models

    def raising(method: Any) -> Any:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            finally:
                for model in models.values():
                    model.raise_pending()

        return call

    for name in COMMANDS:
        setattr(lmp, name, raising(getattr(lmp, name)))
    return models
