"""Screened Coulomb repulsion of nuclei at short distances."""

import torch
from ase.data import covalent_radii
from torch import Tensor, nn

COULOMB = 14.399645478425668
"""e^2 / (4 pi epsilon_0) in eV Å."""
SCREENING_LENGTH = 0.46850
"""a_0 in Å."""
SCREENING_EXPONENT = 0.23
AMPLITUDES = (0.02817, 0.28022, 0.50986, 0.18175)
DECAYS = (0.20162, 0.40290, 0.94229, 3.19980)


class Repulsion(nn.Module):
    """Ziegler-Biersack-Littmark pair energy, brought to zero at the sum of the covalent radii.

    E(r) = (Z_i Z_j e^2 / 4 pi epsilon_0 r) sum_k c_k exp(-d_k r / a) with
    a = a_0 / (Z_i^0.23 + Z_j^0.23), plus the polynomial A r^3 / 3 + B r^4 / 4 + C that makes E,
    E' and E'' vanish at the end; the same as LAMMPS' ``pair_style zbl`` with inner cutoff 0 and
    metatrain's ``zbl``.

    Args:
        species: Atomic numbers that the model knows, ascending; none for a model without it.
    """

    radii: Tensor
    charges: Tensor
    powers: Tensor
    amplitudes: Tensor
    decays: Tensor

    def __init__(self, species: list[int]) -> None:
        super().__init__()
        radii = torch.tensor([covalent_radii[z] for z in species], dtype=torch.float64)
        self.cutoff = 2.0 * max(radii.tolist(), default=0.0)
        self.coulomb = COULOMB
        self.screening_length = SCREENING_LENGTH
        # Radii may come from a published checkpoint, rounded. Powers and charges are rounded as
        # metatrain rounds them, so that energies agree to the last digits.
        charges = torch.tensor(species, dtype=torch.float32)
        self.register_buffer("radii", radii)
        self.register_buffer("charges", charges, persistent=False)
        self.register_buffer("powers", charges**SCREENING_EXPONENT, persistent=False)
        amplitudes = torch.tensor(AMPLITUDES, dtype=torch.float64)
        self.register_buffer("amplitudes", amplitudes, persistent=False)
        decays = torch.tensor(DECAYS, dtype=torch.float64)
        self.register_buffer("decays", decays, persistent=False)

    def forward(self, first: Tensor, second: Tensor, distance: Tensor) -> Tensor:
        """Half the energy of each pair in eV, (E,), for edges that come in both directions.

        Args:
            first: Species index of one atom, (E,) int64.
            second: Species index of the other, (E,) int64.
            distance: In Å, (E,) float64.
        """
        end = self.radii[first] + self.radii[second]
        length = self.screening_length / (self.powers[first] + self.powers[second])
        decay = self.decays / length.to(torch.float64).unsqueeze(1)
        charge = (self.coulomb * self.charges[first] * self.charges[second]).to(torch.float64)
        at_end, slope, curvature = self.screened(charge, end, decay)
        cubic = (-3.0 * slope + end * curvature) / end**2
        quartic = (2.0 * slope - end * curvature) / end**3
        constant = -at_end + 0.5 * end * slope - end * end * curvature / 12.0
        # Beyond the end nothing counts; evaluated at the end, where it is zero in three orders.
        inside = torch.where(distance < end, distance, end)
        energy = self.screened(charge, inside, decay)[0]
        energy = energy + cubic / 3.0 * inside**3 + quartic / 4.0 * inside**4 + constant
        return 0.5 * torch.where(distance < end, energy, torch.zeros_like(energy))

    def screened(
        self, charge: Tensor, distance: Tensor, decay: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Screened Coulomb energy of pairs and its first and second derivative, (E,) each."""
        terms = self.amplitudes * torch.exp(-distance.unsqueeze(1) * decay)
        screening = terms.sum(dim=1)
        first = -(terms * decay).sum(dim=1)
        second = (terms * decay * decay).sum(dim=1)
        bare = charge / distance
        energy = bare * screening
        slope = bare * (first - screening / distance)
        curvature = bare * (second - 2.0 * first / distance + 2.0 * screening / distance**2)
        return energy, slope, curvature
