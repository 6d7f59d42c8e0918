"""The composition baseline of a pretrained potential, fitted to the energies of other data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from rich.table import Table

from pet_mlip.config import Config
from pet_mlip.data.baseline import Baseline, fit_baseline
from pet_mlip.data.structure import Structure
from pet_mlip.engine.potential import Potential
from pet_mlip.train.setup import DataSets, demanded_energies

# A larger shift in eV per atom comes from another method or reference, not from a model's error.
LARGE_SHIFT = 0.5


def refit_baseline(
    potential: Potential,
    known: Sequence[int],
    config: Config,
    data: DataSets,
    predicted: Sequence[float],
) -> Table:
    """Change the energies per element as ``data.baseline`` says, and show what changed.

    Another method puts its energies elsewhere, which would dominate the loss of a fine-tuning. By
    default each element is shifted such that the predictions fit the data on average (least
    squares of reference - prediction per atom).

    Args:
        potential: Its baseline is changed; that of new elements is zero so far.
        known: Elements whose baseline comes from the checkpoint.
        config: Of the training.
        data: Training structures and energies of isolated atoms.
        predicted: Energies of the training structures in eV.
    """
    numbers = potential.state_dict()
    old = dict(zip(potential.species, numbers["composition"].tolist(), strict=True))
    residuals = [
        s if s.energy is None else replace(s, energy=s.energy - energy)
        for s, energy in zip(data.training.structures, predicted, strict=True)
    ]
    fit = fit_shifts(residuals, old, known, config, data)
    new = {z: energy + fit.energies.get(z, 0.0) for z, energy in old.items()}
    potential.set_baseline(new, float(numbers["scale"]))
    change = Change(
        before={z: old[z] for z in known if z in old},
        after=new,
        fit=fit,
        rmse=_rms(residuals) if set(data.species) <= set(known) else math.nan,
    )
    return change.table()


def fit_shifts(
    residuals: Sequence[Structure],
    old: dict[int, float],
    known: Sequence[int],
    config: Config,
    data: DataSets,
) -> Baseline:
    """What is added to the energy of each element, in eV.

    Args:
        residuals: Training structures with reference - prediction as their energies.
        old: Energies of the elements so far in eV.
        known: Elements whose energies mean something already.
        config: Of the training.
        data: Energies of isolated atoms.
    """
    if config.data.baseline == "keep":
        return fit_baseline(residuals, given=dict.fromkeys(known, 0.0))
    given, isolated = demanded_energies(config, data)
    demanded = {z: energy - old[z] for z, energy in {**isolated, **given}.items() if z in old}
    new = [z for z in old if z not in known and z not in demanded]
    if not new:
        return fit_baseline(residuals, given=demanded)
    # New elements first: where compositions do not tell all energies apart, the total energy of a
    # new element must not be spread over those whose energies are nearly right.
    first = fit_baseline(residuals, given={**dict.fromkeys(known, 0.0), **demanded})
    remaining = first.subtracted_from(residuals)
    second = fit_baseline(remaining, given=dict.fromkeys(demanded, 0.0))
    shifts = {z: first.energies.get(z, 0.0) + second.energies.get(z, 0.0) for z in old}
    return replace(second, energies=shifts)


@dataclass(frozen=True)
class Change:
    """The energies of the elements before and after."""

    before: dict[int, float]
    """Of the elements that the checkpoint knows in eV."""
    after: dict[int, float]
    """Of all elements in eV."""
    fit: Baseline
    """Of the shifts."""
    rmse: float
    """Of the energies per atom before in eV; nan if the checkpoint could not predict them."""

    def table(self) -> Table:
        """One row for each element of the data; the others are summed up in the caption."""
        table = Table(
            title="Composition baseline (eV per atom)",
            title_justify="left",
            caption_justify="left",
        )
        table.add_column("element")
        for name in ("before", "after", "shift", "atoms in training"):
            table.add_column(name, justify="right")
        seen = [z for z in sorted(self.after) if self.fit.counts.get(z, 0) > 0]
        for z in seen:
            old, new = self.before.get(z), self.after[z]
            table.add_row(
                chemical_symbols[z],
                "new" if old is None else f"{old:.6f}",
                f"{new:.6f}",
                "" if old is None else f"{new - old:+.6f}",
                str(self.fit.counts[z]),
            )
        table.caption = "\n".join(self._notes(seen)) or None
        return table

    def _notes(self, seen: list[int]) -> list[str]:
        lines = []
        if math.isfinite(self.fit.residual):
            before = "unknown" if math.isnan(self.rmse) else f"{self.rmse:.4f} eV"
            lines.append(
                f"RMSE of the energies per atom of the training set: {before} before, "
                f"{self.fit.residual:.4f} eV after."
            )
        absent = [z for z in self.before if z not in seen]
        largest = max(
            (abs(self.after[z] - self.before.get(z, self.after[z])) for z in seen), default=0
        )
        if absent and largest > LARGE_SHIFT:
            lines.append(
                f"The {len(absent)} elements that the training set lacks keep the energies of the "
                "checkpoint's method: do not compare energies of structures with both kinds."
            )
        return [*lines, *self.fit.notes]


def _rms(residuals: Sequence[Structure]) -> float:
    """Of the energies per atom; nan without any."""
    values: NDArray[np.float64] = np.array(
        [s.energy / s.n_atoms for s in residuals if s.energy is not None]
    )
    return float(np.sqrt(np.mean(values**2))) if len(values) else math.nan
