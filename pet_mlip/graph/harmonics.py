"""Real spherical harmonics of the directions of edges, with their gradient.

Y_lm is normalised as Racah's are: sum_m Y_lm(u) Y_lm(v) is the Legendre polynomial P_l(u . v).
"""

import math

import torch
from torch import Tensor, nn

Polynomial = dict[tuple[int, int, int], float]
"""Coefficient of x^a y^b z^c by (a, b, c)."""


def harmonic_polynomial(degree: int, order: int) -> Polynomial:
    """Return |r|^l Y_lm as a homogeneous polynomial of r = (x, y, z).

    It is sqrt((l - |m|)! / (l + |m|)!), times sqrt(2) unless m is 0, times the real (m >= 0) or
    imaginary part of (x + i y)^|m|, times

        2^-l sum_k (-1)^k C(l, k) C(2 l - 2 k, l) (l - 2 k)! / (l - 2 k - |m|)!
            |r|^(2 k) z^(l - 2 k - |m|) .

    Args:
        degree: l.
        order: m, from -l to l.
    """
    m = abs(order)
    norm = (2.0 if m > 0 else 1.0) * math.factorial(degree - m) / math.factorial(degree + m)
    found: Polynomial = {}
    for k in range((degree - m) // 2 + 1):
        power = degree - 2 * k
        of_z = math.comb(degree, k) * math.comb(2 * power + 2 * k, degree) / 2.0**degree
        of_z *= math.factorial(power) / math.factorial(power - m) * math.sqrt(norm)
        for j in range(0 if order >= 0 else 1, m + 1, 2):
            factor = (-1) ** (k + j // 2) * of_z * math.comb(m, j)
            for a in range(k + 1):
                for b in range(k + 1 - a):
                    # Of the terms of (x^2 + y^2 + z^2)^k.
                    ways = math.comb(k, a) * math.comb(k - a, b)
                    term = (m - j + 2 * a, j + 2 * b, power - m + 2 * (k - a - b))
                    found[term] = found.get(term, 0.0) + factor * ways
    return found


class Harmonics(nn.Module):
    """Evaluate all Y_lm up to a degree L, (L + 1)^2 functions, in float64.

    Args:
        degree: L; none are evaluated if it is negative.
    """

    exponents: Tensor
    """a, b and c of each monomial x^a y^b z^c, (3, powers) int64."""
    values: Tensor
    """Coefficients of each Y, (powers, (L + 1)^2)."""
    slopes: Tensor
    """Those of their derivatives over x, y and z, (3, (L + 1)^2, powers)."""

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree = degree
        self.size = (degree + 1) ** 2
        powers = [
            (a, b, c)
            for a in range(degree + 1)
            for b in range(degree + 1 - a)
            for c in range(degree + 1 - a - b)
        ]
        number = {power: k for k, power in enumerate(powers)}
        values = torch.zeros(len(powers), self.size, dtype=torch.float64)
        slopes = torch.zeros(3, self.size, len(powers), dtype=torch.float64)
        indices = [(k, m) for k in range(degree + 1) for m in range(-k, k + 1)]
        for i, (k, m) in enumerate(indices):
            for power, coefficient in harmonic_polynomial(k, m).items():
                values[number[power], i] = coefficient
                for axis in range(3):
                    if power[axis] > 0:
                        lower = list(power)
                        lower[axis] -= 1
                        column = number[lower[0], lower[1], lower[2]]
                        slopes[axis, i, column] = power[axis] * coefficient
        exponents = torch.tensor(powers, dtype=torch.int64).reshape(-1, 3).t().contiguous()
        self.register_buffer("exponents", exponents, persistent=False)
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("slopes", slopes, persistent=False)

    def forward(self, vectors: Tensor, distance: Tensor, dtype: torch.dtype, piece: int) -> Tensor:
        """Return (|r| / d)^l Y_lm of vectors r and their lengths d, (E, (L + 1)^2).

        Where vectors are projected on an axis after their lengths were taken, and may vanish, this
        is as smooth as they are.

        Args:
            vectors: In Å, (E, 3) float64.
            distance: Lengths in Å before any projection, (E,) float64.
            dtype: Of the result.
            piece: Vectors evaluated at once.
        """
        found = torch.empty(vectors.shape[0], self.size, dtype=dtype, device=vectors.device)
        if self.size > 0:
            for start in range(0, vectors.shape[0], piece):
                end = min(start + piece, vectors.shape[0])
                scaled = vectors[start:end] / distance[start:end].unsqueeze(1)
                found[start:end] = (self.monomials(scaled) @ self.values).to(dtype)
        return found

    def vjp(
        self, grad: Tensor, vectors: Tensor, distance: Tensor, piece: int
    ) -> tuple[Tensor, Tensor]:
        """Compute the gradient over vectors (E, 3) and distance (E,), float64; see `forward`."""
        of_vectors, of_distance = torch.zeros_like(vectors), torch.zeros_like(distance)
        if self.size > 0:
            for start in range(0, vectors.shape[0], piece):
                end = min(start + piece, vectors.shape[0])
                length = distance[start:end].unsqueeze(1)
                scaled = vectors[start:end] / length
                monomials = self.monomials(scaled)
                own = grad[start:end].to(torch.float64)
                of_axes = [((own @ slope) * monomials).sum(dim=1) for slope in self.slopes]
                of_scaled = torch.stack(of_axes, dim=1) / length
                of_vectors[start:end] = of_scaled
                of_distance[start:end] = -(of_scaled * scaled).sum(dim=1)
        return of_vectors, of_distance

    def monomials(self, scaled: Tensor) -> Tensor:
        """Compute x^a y^b z^c of vectors (R, 3), (R, powers)."""
        powers = [torch.ones_like(scaled)]
        for _ in range(self.degree):
            powers.append(powers[-1] * scaled)
        by_axis = torch.stack(powers, dim=2)
        found = by_axis[:, 0].index_select(1, self.exponents[0])
        for axis in range(1, 3):
            found = found * by_axis[:, axis].index_select(1, self.exponents[axis])
        return found
