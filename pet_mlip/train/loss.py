"""Loss and errors of energies per atom, forces, stresses and other results.

Labels may be absent (nan).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.config import LossConfig
from pet_mlip.data.batch import Batch, BatchTotals
from pet_mlip.engine.derivatives import Prediction

DERIVED = ("energy", "forces", "stress")
"""Targets that come from the energy, on whose scale their residuals are measured."""


class Residual(NamedTuple):
    """Prediction minus reference, zero where there is no reference, and where there is one."""

    values: Tensor
    """Any shape, float64."""
    known: Tensor
    """Same shape, bool."""


class Loss:
    """Weighted mean penalties of the residuals, in units of the scale of the data.

    Args:
        config: Kind and weights.
        scale: Root mean square force of the training set (or what takes its place), in eV.
        result_scales: Scales of the model's other results, in their units.
    """

    def __init__(
        self, config: LossConfig, scale: float, result_scales: Mapping[str, float] | None = None
    ) -> None:
        self.config = config
        self.scale = scale
        self.scales = {**dict.fromkeys(DERIVED, scale), **(result_scales or {})}
        weights = {
            "energy": config.energy_weight,
            "forces": config.forces,
            "stress": config.stress,
        }
        weights |= {name: config.weight_of_result(name) for name in result_scales or {}}
        self.weights = {target: weight for target, weight in weights.items() if weight > 0}

    @property
    def targets(self) -> tuple[str, ...]:
        """All that may be compared, trained on or not."""
        return tuple(self.scales)

    @property
    def needs_derivatives(self) -> bool:
        """Whether forces or stresses are trained on."""
        return "forces" in self.weights or "stress" in self.weights

    def __call__(self, residuals: dict[str, Residual], counts: dict[str, int]) -> Tensor:
        """The loss from residuals and the numbers of labels in the global batch, float64."""
        terms = [
            weight / max(counts.get(target, 0), 1) * self.penalty(target, residuals[target]).sum()
            for target, weight in self.weights.items()
        ]
        return torch.stack(terms).sum()

    def score(self, errors: Mapping[str, float]) -> float:
        """Tell how good a model is: the geometric mean of the mean absolute errors trained on.

        A loss is ruled by one target, and a mean of squares by a few structures: near the end of a
        training both grow by chance while all errors of the test set still fall.

        Args:
            errors: From `ErrorSums.result`.
        """
        found = [errors.get(f"{target}_mae", math.nan) for target in self.weights]
        known = [max(x, 1e-12) for x in found if not math.isnan(x)]
        if not known or not math.isfinite(errors["val_loss"]):
            return errors["val_loss"]
        return math.exp(sum(math.log(x) for x in known) / len(known))

    def penalty(self, target: str, residual: Residual) -> Tensor:
        """Square of the residual over the scale; linear beyond ``huber_delta`` with huber."""
        x = residual.values / self.scales[target]
        if self.config.kind == "mse":
            return x * x
        delta = self.config.huber_delta
        size = x.abs()
        return torch.where(size < delta, x * x, delta * (2 * size - delta))


def label_counts(totals: BatchTotals) -> dict[str, int]:
    """Number of labels of each target in a global batch."""
    return {
        "energy": totals.energies,
        "forces": 3 * totals.forces,
        "stress": 9 * totals.stresses,
        **totals.results,
    }


def compare(prediction: Prediction, batch: Batch) -> dict[str, Residual]:
    """Residuals of energy per atom (S,), forces (N, 3), stress (S, 3, 3), as far as predicted.

    Those of other results too, of sums over atoms per atom.
    """
    found = {"energy": _residual(prediction.energy, batch.energy, batch.n_atoms)}
    if prediction.forces is not None and prediction.virial is not None:
        # Without a cell the volume is nan, and there is no stress label: any volume will do.
        volume = torch.nan_to_num(batch.volume, nan=1.0)[:, None, None]
        found["forces"] = _residual(prediction.forces, batch.forces)
        found["stress"] = _residual(prediction.virial / volume, batch.stress)
    for name, predicted in prediction.results.items():
        if name in batch.atomic_results:
            found[name] = _residual(predicted, batch.atomic_results[name])
        else:
            label = batch.results.get(name, torch.full_like(predicted, torch.nan))
            divisor = (
                batch.n_atoms.view(-1, *[1] * (predicted.dim() - 1)) if name in batch.results else 1
            )
            found[name] = _residual(predicted, label, divisor)
    return found


def _residual(predicted: Tensor, label: Tensor, divisor: Tensor | int = 1) -> Residual:
    # Only a label may be nan for want of it; a prediction that is nan has to show.
    known = ~torch.isnan(label)
    return Residual(torch.where(known, (predicted - label) / divisor, 0.0), known)


class ErrorSums:
    """Streaming sums over structures: penalties, absolute and squared errors, label counts.

    Args:
        loss: Whose penalties are summed.
        device: Where.
    """

    def __init__(self, loss: Loss, device: torch.device) -> None:
        self.loss = loss
        self.sums = torch.zeros(len(loss.targets), 5, dtype=torch.float64, device=device)

    def add(self, residuals: dict[str, Residual]) -> None:
        """Add one batch."""
        for row, target in enumerate(self.loss.targets):
            if target in residuals:
                self.sums[row] += self._row(target, residuals[target])

    def _row(self, target: str, residual: Residual) -> Tensor:
        values, known = residual
        penalty, labels = self.loss.penalty(target, residual).sum(), known.sum()
        if values.dim() == 3:
            # Errors are those of the six independent components, as evaluation reports them.
            i, j = torch.triu_indices(3, 3, device=values.device)
            values, known = values[:, i, j], known[:, i, j]
        errors = values.abs().sum(), values.square().sum(), known.sum()
        return torch.stack([penalty, labels, *errors])

    def result(self) -> dict[str, float]:
        """Validation loss, MAE and RMSE; nan without labels.

        In meV/atom, meV/Å and meV/Å^3; of other results in their own units.
        """
        errors = {"val_loss": 0.0}
        for target, sums in zip(self.loss.targets, self.sums.tolist(), strict=True):
            unit = 1000 if target in DERIVED else 1
            penalty, labels, absolute, squared, count = sums
            errors["val_loss"] += self.loss.weights.get(target, 0.0) * penalty / max(labels, 1)
            errors[f"{target}_mae"] = unit * absolute / count if count else float("nan")
            errors[f"{target}_rmse"] = unit * (squared / count) ** 0.5 if count else float("nan")
        return errors
