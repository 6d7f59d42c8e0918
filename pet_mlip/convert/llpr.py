"""The uncertainties that metatrain's LLPR wraps around a PET.

Its features have the order of ours. With their covariance C = L L^T and the calibrated multiplier
alpha, sigma(E) = alpha |L^-1 F| in the unit of the energy, so that A of
`pet_mlip.network.uncertainty` is alpha L^-1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pet_mlip.convert.archive import StoredTensor
from pet_mlip.convert.targets import Target
from pet_mlip.network.uncertainty import Posterior

MEMBERS = 8
"""Drawn for the uncertainty of forces; metatrain's own ensembles have a hundred or so."""
KEPT = (
    "Its uncertainty estimate (LLPR) is kept; uncertainties of forces come from "
    f"{MEMBERS} members drawn from it, and are not calibrated on forces."
)
LEFT_OUT = "Its uncertainty estimate (LLPR) is left out, since it was never fitted."


def read_uncertainty(
    wrapper: dict[str, Any], target: Target, size: int, n_species: int
) -> Posterior | None:
    """Read what is known of the last weights; None if nothing was fitted.

    Args:
        wrapper: The checkpoint around that of the model.
        target: The energy.
        size: Number of last features.
        n_species: Number of elements; metatrain measures features from zero.

    Raises:
        ValueError: They are of another model.
    """
    state: dict[str, StoredTensor] = wrapper.get("model_state_dict") or wrapper["state_dict"]
    base = target.name.removeprefix("mtt::")
    name = "energy_uncertainty" if base == "energy" else f"mtt::aux::{base}_uncertainty"
    factor = _factor(state, name)
    multiplier = state.get(f"multiplier_{name}")
    if factor is None or multiplier is None:
        return None
    if factor.shape != (size, size):
        raise ValueError(f"uncertainties of {len(factor)} features, but the model has {size}")
    alpha = target.factor * float(multiplier.load().double())
    unit = torch.eye(size, dtype=torch.float64)
    whitening = alpha * torch.linalg.solve_triangular(factor, unit, upper=False)
    draw = torch.Generator().manual_seed(0)
    drawn = torch.randn(MEMBERS, size, generator=draw, dtype=torch.float64)
    mean = torch.zeros(n_species, size, dtype=torch.float64)
    # Metatrain's variance is that of the last weights alone: nothing grows.
    typical = torch.full((n_species,), torch.inf, dtype=torch.float64)
    return Posterior(whitening, drawn @ whitening, mean, typical)


def _factor(state: dict[str, StoredTensor], name: str) -> Tensor | None:
    """L; before version 4 there was only C, of which the smallest ridge that works is taken."""
    stored = state.get(f"cholesky_{name}")
    if stored is not None:
        factor = stored.load().double()
        return factor if bool((factor.diagonal() > 0).all()) else None
    stored = state.get(f"covariance_{name}")
    if stored is None:
        return None
    covariance = stored.load().double()
    if not bool((covariance.diagonal() > 0).any()):
        return None
    covariance = 0.5 * (covariance + covariance.t())
    ridge = 1e-20
    while True:
        unit = torch.eye(len(covariance), dtype=torch.float64)
        factor, failed = torch.linalg.cholesky_ex(covariance + ridge * unit)
        if not bool(failed):
            return factor
        ridge *= 10.0
