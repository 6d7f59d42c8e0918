"""The ridge and the sizes under which errors on a validation set are likeliest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pet_mlip.errors import UserError
from pet_mlip.train.uncertainty.errors import Comparison

OUTLIER = 3.0
"""Errors count as no more than so many times the standard deviation that 68 % lie within, so that
an isolated atom or a wrong label among the structures does not decide on everybody's size."""
ROUNDOFF = 1e-6
"""Of features and their derivatives in float32, relative."""
NOISE = 1e-2
"""The largest part of an uncertainty that may be round-off."""
RIDGES = tuple(10.0**k for k in range(-12, 2))
"""Over the mean eigenvalue of the curvature, from the smallest on."""
ALIKE = 4.0
"""Twice the logarithm of a likelihood ratio that does not tell two ridges apart."""


def weight_of(errors: Comparison, divisor: Tensor | None) -> float:
    """Compute 1 / s^2 of the errors' root mean square s; zero without any.

    Args:
        errors: Of energies or forces.
        divisor: What each is divided by before, (R,), or None.
    """
    if len(errors.values) == 0:
        return 0.0
    values = errors.values if divisor is None else errors.values / divisor
    return 1.0 / max(float(values.square().mean()), 1e-30)


def find_ridge(curvature: Tensor, judges: list[Comparison]) -> tuple[float, Tensor]:
    """Find the ridge under which some errors are likeliest, and L of C + ridge = L L^T.

    Of ridges that they do not tell apart it is the smallest, which supposes the least about what
    the training data leave open: far from them a larger one would be too sure.

    Raises:
        UserError: There is none.
    """
    candidates = [(ridge, _factor(curvature, ridge)) for ridge in RIDGES]
    known = [
        (sum(_surprise(errors, factor) for errors in judges), ridge, factor)
        for ridge, factor in candidates
        if len(factor) and _is_resolved(judges[-1], factor)
    ]
    if not known:
        raise UserError(
            "Uncertainties could not be found from these data: round-off would rule them."
        )
    best = min(surprise for surprise, _, _ in known)
    return next((ridge, factor) for found, ridge, factor in known if found <= best + ALIKE)


def _factor(curvature: Tensor, ridge: float) -> Tensor:
    """Return L of C + ridge = L L^T; nothing where round-off leaves that not positive."""
    mean = curvature.diagonal().mean()
    unit = torch.eye(len(curvature), dtype=curvature.dtype)
    factor, failed = torch.linalg.cholesky_ex(curvature + ridge * mean * unit)
    return factor[:0] if bool(failed) else factor


def _squares(errors: Comparison, factor: Tensor) -> Tensor:
    """F^T C^-1 F of each, (R,)."""
    return torch.linalg.solve_triangular(factor, errors.vectors.t(), upper=False).square().sum(0)


def _is_resolved(errors: Comparison, factor: Tensor) -> bool:
    """Whether the features' round-off is small in F^T C^-1 F, for most of them.

    A small ridge makes C^-1 large along directions that the data say nothing of; features that
    have nothing there in exact arithmetic have round-off.
    """
    inverse = torch.cholesky_inverse(factor).diagonal()
    noise = ROUNDOFF**2 * (errors.vectors.square() @ inverse)
    return bool((noise / _squares(errors, factor)).median() <= NOISE**2)


def find_sizes(
    energies: Comparison, forces: Comparison, factor: Tensor
) -> tuple[float, float, dict[str, Any]]:
    """Find the alphas of energies and of forces, and tell how well they fit.

    What has no errors takes the other's.
    """
    sizes = [_size(e, factor) if len(e.values) >= 2 else None for e in (energies, forces)]
    known = [size for size in sizes if size is not None]
    of_energy, of_forces = (known[0] if size is None else size for size in sizes)
    facts = {
        "energy_labels": len(energies.values),
        "force_labels": len(forces.values),
        "energy_within": _within(energies, factor, of_energy),
        "force_within": _within(forces, factor, of_forces),
    }
    return of_energy, of_forces, facts


def _size(errors: Comparison, factor: Tensor) -> float:
    """The alpha under which the errors are likeliest, but for outliers; see `OUTLIER`."""
    ratio = errors.values.abs() / _squares(errors, factor).sqrt()
    largest = OUTLIER * float(ratio.quantile(0.683))
    if largest > 0.0:  # not if most of the labels are the model's own
        ratio = ratio.clamp(max=largest)
    return float(ratio.square().mean().sqrt())


def _surprise(errors: Comparison, factor: Tensor) -> float:
    """Minus twice the log likelihood with that alpha, but for a constant."""
    squares = _squares(errors, factor)
    mean = (errors.values.square() / squares).mean().log() + squares.log().mean()
    return len(squares) * float(mean)


def _within(errors: Comparison, factor: Tensor, size: float) -> list[float | None]:
    """Fractions of the errors within one and two standard deviations; None without errors."""
    if len(errors.values) == 0:
        return [None, None]
    ratio = errors.values.abs() / (size * _squares(errors, factor).sqrt())
    return [float((ratio < k).double().mean()) for k in (1, 2)]
