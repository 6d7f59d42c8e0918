"""A model for TorchSim: batches of structures, relaxed or simulated together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.data.dispersion import REACH
from pet_mlip.data.neighbours import complete_cell, neighbour_list
from pet_mlip.errors import UserError
from pet_mlip.missing import missing

try:
    from torch_sim.models.interface import ModelInterface
    from torch_sim.state import SimState
except ImportError as error:
    raise missing("torchsim", error) from error

Floats = NDArray[np.float64]
STATE = {"charge": "charge", "spin_multiplicity": "spin"}
"""Where states have what `atoms.info` has."""
HOW_TO_TELL = (
    "give each system its own by atoms_to_state(..., system_extras_map={'charge': 'charge', "
    "'spin': 'spin_multiplicity'}) from atoms.info (TorchSim 0.6 and later), or by "
    "atoms.info['charge'] and atoms.info['spin'] (0.4.2 and 0.5)"
)


class PETModel(ModelInterface):
    """Energies, forces and stresses of TorchSim's states, those of a `PETCalculator`.

    All systems of a state are evaluated together. Every periodicity is right, whatever the size of
    the cell, but `atoms_to_state` of TorchSim 0.3 and 0.4.0 turns that of slabs and wires into
    none: such states are refused until `pbc` says what is meant. `stress` is missing where no
    system has a cell with a volume, and nan for systems without one among others.

    Models that depend on the electronic state read `charge` and `spin` (2S + 1) from the state's
    `system_extras`, one number for each system, or else take what is given here for all of them.
    TorchSim takes them over from `atoms.info` where `atoms_to_state` is told to
    (`system_extras_map`, 0.6 and later), or by itself (`charge` and `spin`, 0.4.2 and 0.5).

    Args:
        model: A calculator, or a path or name to make one of with its defaults. Its device is the
            states'.
        compute_forces: Whether to compute forces.
        compute_stress: Whether to compute stresses.
        charge: Total charge of systems whose state has none.
        spin_multiplicity: 2S + 1 of systems whose state has none.
        pbc: Periodicity along each cell vector (or along all) of every system, instead of the
            state's.
        state_dtype: Of states and results; the model computes in its own precision.

    Raises:
        UserError: There is no such file, or it is not a model of this package.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | PETCalculator,
        *,
        compute_forces: bool = True,
        compute_stress: bool = True,
        charge: int | None = None,
        spin_multiplicity: int | None = None,
        pbc: bool | Sequence[bool] | None = None,
        state_dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.calculator = model if isinstance(model, PETCalculator) else PETCalculator(model)
        self._device = self.calculator.device
        self._dtype = state_dtype
        self._compute_forces = compute_forces
        self._compute_stress = compute_stress
        self._memory_scales_with = "n_atoms_x_density"
        self._given = {"charge": charge, "spin_multiplicity": spin_multiplicity}
        self._pbc = pbc

    @property
    def compute_forces(self) -> bool:
        """Whether forces are computed."""
        return self._compute_forces

    @compute_forces.setter
    def compute_forces(self, wanted: bool) -> None:
        self._compute_forces = wanted

    @property
    def compute_stress(self) -> bool:
        """Whether stresses are computed."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, wanted: bool) -> None:
        self._compute_stress = wanted

    def forward(self, state: SimState, **_: Any) -> dict[str, Tensor]:
        """Evaluate all systems of a state.

        Args:
            state: S systems of N atoms; it is not changed.

        Returns:
            `energy` in eV, (S,); `forces` in eV/Å, (N, 3); `stress` in eV/Å^3, (S, 3, 3).

        Raises:
            UserError: As `PETCalculator.compute_batch` does, naming the place of the system; the
                model depends on a charge and a spin multiplicity that nobody told; or the state is
                periodic nowhere and may have been a slab or a wire.
        """
        structures = self.structures(state)
        properties = ["energy"]
        properties += ["forces"] * self._compute_forces + ["stress"] * self._compute_stress
        # TorchSim shares out batches itself.
        at_once = max(sum(len(atoms) for atoms in structures), 1)
        results = self.calculator.compute_batch(structures, properties, max_atoms=at_once)
        found = Outputs(energy=self.tensor([result["energy"] for result in results]))
        if self._compute_forces:
            forces = [np.zeros((0, 3)), *(result["forces"] for result in results)]
            found["forces"] = self.tensor(np.concatenate(forces))
        if any("stress" in result for result in results):
            nothing = np.full(6, np.nan)
            voigt = np.array([result.get("stress", nothing) for result in results])
            found["stress"] = self.tensor(voigt[:, [[0, 5, 4], [5, 1, 3], [4, 3, 2]]])
        return found

    def tensor(self, values: Any) -> Tensor:
        """Return numbers as states have them."""
        return torch.tensor(np.asarray(values), dtype=self._dtype, device=self._device)

    def structures(self, state: SimState) -> list[Atoms]:
        """Take a state apart."""
        owner = state.system_idx.cpu().numpy()
        positions = state.positions.detach().to("cpu", torch.float64).numpy()
        cells = state.row_vector_cell.detach().to("cpu", torch.float64).numpy()
        numbers = state.atomic_numbers.cpu().numpy()
        told = state.pbc if self._pbc is None else self._pbc
        pbc = np.broadcast_to(torch.as_tensor(told).cpu().numpy(), 3)
        infos = self.infos(state, len(cells))
        # Atoms stand in the order of their systems.
        ends = np.searchsorted(owner, np.arange(len(cells)), side="right")
        own = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        structures = [
            Atoms(numbers[k], positions[k], cell=cell, pbc=pbc, info=info)
            for k, cell, info in zip(own, cells, infos, strict=True)
        ]
        # Later releases of TorchSim have a tensor here, and nothing was lost.
        if self._pbc is None and told is False:
            self.refuse_lost_periodicity(structures)
        return structures

    def refuse_lost_periodicity(self, structures: list[Atoms]) -> None:
        """Refuse what would have other energies if it were periodic along its cell vectors.

        A slab and a molecule in a box come here as the same. Where images of atoms are beyond the
        cutoff, and that of D3 if the calculator adds it, the difference has no meaning.
        """
        for place, atoms in enumerate(structures):
            cell = atoms.cell.array
            periodic = cell.any(axis=1)
            try:
                may_differ = self.has_near_images(atoms.positions, cell, periodic)
            except UserError:
                raise UserError(
                    f"Structure {place} is periodic in no direction, and its cell vectors lie in a "
                    "line or a plane: give it another cell, or none; or, if it is a molecule, "
                    "PETModel(..., pbc=False)."
                ) from None
            if may_differ:
                raise UserError(
                    f"Structure {place} is periodic in no direction, but images of its atoms in "
                    "its cell would be neighbours: it may have been a slab or a wire, whose "
                    "periodicity TorchSim's atoms_to_state drops. Say what it is: PETModel(..., "
                    "pbc=(True, True, False)) for a slab, PETModel(..., pbc=False) for a molecule."
                )

    def has_near_images(self, positions: Floats, cell: Floats, periodic: NDArray[np.bool_]) -> bool:
        """Whether atoms would have more neighbours if they were periodic along these vectors.

        Raises:
            UserError: The vectors are linearly dependent.
        """
        cutoff = self.calculator.metadata.cutoff if self.calculator.d3 is None else REACH
        # Columns of the inverse are as long as planes of the cell are dense.
        inverse = np.linalg.inv(complete_cell(cell, periodic))
        free = 1 - np.ptp(positions @ inverse, axis=0) - cutoff * np.linalg.norm(inverse, axis=0)
        if (free[periodic] > 0).all():
            return False  # as in nearly all boxes
        pairs = [
            neighbour_list(positions, cell, pbc, cutoff)[0].shape[1]
            for pbc in (np.zeros(3, bool), periodic)
        ]
        return pairs[0] != pairs[1]

    def infos(self, state: SimState, n_systems: int) -> list[dict[str, Any]]:
        """Return charge and spin multiplicity of each system, if the model depends on them."""
        infos: list[dict[str, Any]] = [{} for _ in range(n_systems)]
        if not self.calculator.metadata.hypers.get("system_conditioning", False):
            return infos
        for (quantity, name), values in zip(STATE.items(), told(state, n_systems), strict=True):
            given = self._given[quantity]
            if given is None and values.isnan().any():
                raise UserError(
                    f"This model depends on charge and spin multiplicity, but the state has no "
                    f"{name}: {HOW_TO_TELL}, or PETModel(..., {quantity}=...) all the same."
                )
            for info, value in zip(infos, values.tolist(), strict=True):
                info[quantity] = given if np.isnan(value) else value
        return infos


def told(state: SimState, n_systems: int) -> list[Tensor]:
    """Find what a state has of `STATE`, (S,) each, with nan for what nobody told.

    Raises:
        UserError: It has some of it where TorchSim loses it.
    """
    found = []
    for quantity, name in STATE.items():
        values = getattr(state, "system_extras", {}).get(name)
        if name in state._system_attributes:
            values = getattr(state, name)
        elif name in vars(state):
            raise UserError(
                f"state.{name} was set as an attribute, which TorchSim loses when it copies or "
                f"slices a state: {HOW_TO_TELL}, or PETModel(..., {quantity}=...) all the same."
            )
        if values is None:
            values = torch.full((n_systems,), torch.nan)
        found.append(values.detach().to("cpu", torch.float64).reshape(n_systems))
    if "spin" in state._system_attributes:
        # TorchSim 0.4.2 and 0.5 have zeros where nobody told, and 2S + 1 is never zero.
        charge, spin = found
        untold = spin == 0
        found = [
            charge.masked_fill(untold & (charge == 0), torch.nan),
            spin.masked_fill(untold, torch.nan),
        ]
    return found


class Outputs(dict[str, Tensor]):
    """Results by name, which say why there is no stress to whoever needs one."""

    def __missing__(self, name: str) -> Tensor:
        """Raise for a result that is not there."""
        if name == "stress":
            raise UserError(
                "A stress is needed, but it was not asked for (compute_stress=True), or no system "
                "has a cell whose three vectors span a volume (compute_stress=False)."
            )
        raise KeyError(name)
