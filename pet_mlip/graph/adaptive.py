"""Adaptive cutoffs: each atom's own radius, within which it has about the same count of neighbours.

With n_i(r) = sum_j f(r_ij; r, w) counting the neighbours of atom i within r smoothly (f is the Bump
switch of width w) and n the wanted number, both methods compare n_i(r) + n b(r) with n. The cubic
baseline b, which rises from 0 to 1 at the cutoff r_c, stands for a uniform density, and sets the
radius where there are few atoms. Definitions and constants are those of metatrain's PET.
"""

import math

import torch
from torch import Tensor

from pet_mlip.graph.cutoff import bump_switch


def solve_cutoffs(
    distance: Tensor,
    centre: Tensor,
    n_atoms: int,
    count: float,
    cutoff: float,
    width: float,
    exact: bool,
) -> Tensor:
    """Root r_i of n_i(r) + n (r / r_c)^3 = n, by Newton steps inside a shrinking bracket.

    The steps are not differentiated; one implicit-function step after them has the exact first
    derivative, and another one the second, wherever they have converged. Published models are
    defined by ten Newton steps, after which about one atom in 5000 has not converged (measured:
    silicon, copper, ethanol; up to 1.7 neighbours off), and its energy jumps; ``exact`` bisects
    first, and always converges.

    Args:
        distance: Length of each edge in Å, (E,) float64.
        centre: Centre of each edge, (E,) int64.
        n_atoms: Number of atoms.
        count: Wanted number n of neighbours.
        cutoff: Largest cutoff r_c in Å.
        width: Width w of the counting switch in Å.
        exact: Whether to converge to round-off.

    Returns:
        Cutoff of each atom in Å, (N,), between r_c / 16 and r_c.
    """
    fixed = distance.detach()
    low = torch.zeros(n_atoms, dtype=distance.dtype, device=distance.device)
    high = torch.full_like(low, cutoff)
    radius = 0.5 * high
    n_bisections, n_steps = (20, 28) if exact else (0, 10)
    for k in range(n_steps):
        excess, slope = count_excess(radius, fixed, centre, count, cutoff, width)
        below = excess <= 0.0
        low = torch.where(below, radius, low)
        high = torch.where(below, high, radius)
        step = radius - excess / slope.clamp(min=1e-6)
        inside = (step >= low) & (step <= high)
        middle = 0.5 * (low + high)
        radius = torch.where(inside, step, middle) if k >= n_bisections else middle
    slope = count_excess(radius, fixed, centre, count, cutoff, width)[1].clamp(min=1e-6)
    step = count_excess(radius, distance, centre, count, cutoff, width)[0] / slope
    radius = radius - step
    # The value stays what it is and, at a root, the first derivative does.
    again = count_excess(radius, distance, centre, count, cutoff, width)[0] / slope
    again = torch.where(step.detach().abs() < 1e-12 * cutoff, again - again.detach(), 0.0)
    return (radius - again).clamp(cutoff / 16.0, cutoff)


def count_excess(
    radius: Tensor, distance: Tensor, centre: Tensor, count: float, cutoff: float, width: float
) -> tuple[Tensor, Tensor]:
    """n_i(r_i) + n (r_i / r_c)^3 - n and its derivative over r_i, both (N,)."""
    x = (distance - (radius.index_select(0, centre) - width)) / width
    active = (x > 0.0) & (x < 1.0)
    phase = math.pi * x.clamp(1e-6, 1.0 - 1e-6)
    sine = torch.sin(phase)
    level = torch.tanh(torch.cos(phase) / sine)
    switch = torch.where(active, 0.5 * (1.0 + level), (x <= 0.0).to(x.dtype))
    slope = (0.5 * math.pi / width) * (1.0 - level * level) / (sine * sine)
    slope = torch.where(active, slope, torch.zeros_like(slope))
    fraction = radius / cutoff
    excess = torch.zeros_like(radius).index_add(0, centre, switch)
    total_slope = torch.zeros_like(radius).index_add(0, centre, slope)
    excess = excess + count * (fraction * fraction * fraction - 1.0)
    return excess, total_slope + (3.0 * count / cutoff) * fraction * fraction


def average_cutoffs(
    distance: Tensor,
    centre: Tensor,
    n_atoms: int,
    count: float,
    smallest: float,
    cutoff: float,
    width: float,
) -> Tensor:
    """Average of trial cutoffs R_k, those weighted most where n_i(R_k) + n b_k is about n.

    R_k goes from the smallest up to the cutoff in steps of w / 4, b_k = (k / k_max)^3, and the
    weight is a Gaussian of the excess over its own slope along the trials.

    Args:
        distance: Length of each edge in Å, (E,) float64.
        centre: Centre of each edge, (E,) int64.
        n_atoms: Number of atoms.
        count: Wanted number n of neighbours.
        smallest: First trial in Å.
        cutoff: Largest cutoff r_c in Å.
        width: Width w of the counting switch in Å.

    Returns:
        Cutoff of each atom in Å, (N,).
    """
    trial = torch.arange(
        smallest, cutoff, width / 4.0, dtype=distance.dtype, device=distance.device
    )
    switch = bump_switch(distance.unsqueeze(1), trial, width)
    n_trials = trial.shape[0]
    counted = torch.zeros(n_atoms, n_trials, dtype=distance.dtype, device=distance.device)
    counted = counted.index_add(0, centre, switch)
    fraction = torch.linspace(0.0, 1.0, n_trials, dtype=trial.dtype, device=trial.device)
    excess = counted + count * (fraction * fraction * fraction - 1.0)
    if n_trials == 1:
        slope = 0.5 * excess.abs() + 1e-12
    else:
        first = excess[:, 1:2] - excess[:, :1]
        middle = 0.5 * (excess[:, 2:] - excess[:, :-2])
        last = excess[:, -1:] - excess[:, -2:-1]
        slope = torch.cat([first, middle, last], dim=1).abs().clamp(min=1e-12)
    weight = torch.softmax(-0.5 * (excess / slope) ** 2, dim=1)
    return weight @ trial
