"""Which uncertainties a calculator has, which it computes, and when it warns of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from pet_mlip.ase.checks import check_number
from pet_mlip.ase.committee import Committee
from pet_mlip.ase.engine import Engine, Output
from pet_mlip.ase.symmetrize.modes import Symmetrization
from pet_mlip.engine.precision import ROUNDING
from pet_mlip.errors import UserError
from pet_mlip.export.metadata import Metadata

LOG = logging.getLogger("pet_mlip")
UNCERTAINTIES = {"energy_uncertainty": 1, "energies_uncertainty": 1, "forces_uncertainty": 2}
"""With what an engine is asked for."""
LEVELS = {False: 0, "energy": 1, "forces": 2, True: 2}
"""What an engine is asked for in every call."""


class Uncertainties:
    """The uncertainties of a calculator.

    Args:
        missing: Why there are none; None where there are.
        wanted: Those of every call, as for `PETCalculator`.
        warn_above: As for `PETCalculator`.

    Raises:
        UserError: Some are wanted where there are none, or an argument makes no sense.
    """

    def __init__(self, missing: str | None, wanted: bool | str, warn_above: float | None) -> None:
        self._missing = missing
        self._warn_above = warn_above
        if not isinstance(wanted, bool | str) or wanted not in LEVELS:
            raise UserError(f'uncertainty is "energy", "forces", True or False, not {wanted!r}.')
        self._always = LEVELS[wanted]
        if warn_above is not None:
            check_number("warn_above", warn_above, "an uncertainty in eV/Å or eV, zero or more")
            if self._always == 0:
                raise UserError('warn_above needs uncertainty="forces" or "energy".')
        if self._always > 0:
            self.require()

    @property
    def known(self) -> bool:
        """Whether there are any."""
        return self._missing is None

    def require(self) -> None:
        """Raise a UserError if there are none."""
        if self._missing is not None:
            raise UserError(self._missing)

    def level(self, properties: Sequence[str]) -> int:
        """Return what an engine is asked for where these properties are."""
        return max([self._always, *(UNCERTAINTIES.get(name, 0) for name in properties)])

    def warn(self, output: Output) -> None:
        """Log that an atom's uncertainty is larger than was allowed, if one is."""
        found = output.uncertainty
        if self._warn_above is None or found is None or len(found.vectors) == 0:
            return
        of_forces = found.forces is not None
        values = np.linalg.norm(found.vectors, axis=1) if found.forces is None else found.forces
        k = int(np.argmax(values))
        if values[k] > self._warn_above:
            LOG.warning(
                "The %s of atom %d is uncertain by %.3g %s, more than %g.",
                "force" if of_forces else "energy",
                k,
                values[k],
                "eV/Å" if of_forces else "eV",
                self._warn_above,
            )


def why_none(
    model: Engine | Committee, metadata: Metadata, symmetrization: Symmetrization
) -> str | None:
    """Say why there are no uncertainties; None where there are."""
    if symmetrization.mode != "none":
        return (
            f"Models averaged over orientations (symmetrization {symmetrization.mode}) have no "
            "uncertainties."
        )
    if model.model.precision in ROUNDING:
        return (
            f"Uncertainties are differences that dtype {model.model.precision} rounds away; use "
            "float32."
        )
    if not isinstance(model, Committee) and not metadata.uncertainty:
        return (
            "This model does not know its uncertainty; `pet-mlip uncertainty` adds it to a trained "
            "model."
        )
    return None
