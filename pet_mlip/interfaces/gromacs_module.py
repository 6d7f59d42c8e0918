"""A potential as GROMACS' NNPot calls it: nm and kJ/mol, and its own neighbour list."""

import torch
from torch import Tensor, nn

from pet_mlip.engine.potential import Potential
from pet_mlip.export.module import ExportedModel

NANOMETRE = 10.0
"""Å."""
ELECTRONVOLT = 96.48533212331
"""kJ/mol (CODATA 2018)."""


class GromacsModule(nn.Module):
    """Energy and forces of the atoms that GROMACS gives to a network.

    The forces are the derivative that the potential writes out, and not left to autograd.

    Args:
        potential: The model; it is taken over.
    """

    known: Tensor
    """Whether the model knows each atomic number, (119,) bool."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.model = ExportedModel(potential)
        self.cutoff = potential.cutoff
        self.length, self.energy = NANOMETRE, ELECTRONVOLT
        self.names = " ".join(str(z) for z in potential.species)
        known = torch.zeros(119, dtype=torch.bool)
        known[torch.tensor(potential.species)] = True
        self.register_buffer("known", known)

    def forward(
        self,
        positions: Tensor,
        numbers: Tensor,
        box: Tensor | None = None,
        pbc: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Evaluate atoms.

        Args:
            positions: In nm, (N, 3); atoms may lie in any of their images.
            numbers: Atomic numbers, (N,).
            box: Its three vectors in nm as rows, (3, 3); no periodic images without it.
            pbc: Along which of them there are images, (3,); along all by default.

        Returns:
            Energy in kJ/mol, (), and forces in kJ/mol/nm, (N, 3), float64.

        Raises:
            RuntimeError: Unknown elements; positions, or what the model makes of them, that are not
                finite.
        """
        places = positions.detach().to(torch.float64) * self.length
        species = numbers.to(torch.int64)
        inside = (species > 0) & (species < self.known.shape[0])
        if not bool((inside & self.known[species.clamp(0, self.known.shape[0] - 1)]).all()):
            raise RuntimeError(
                "pet_mlip: an atom of nnpot-input-group is of an element that the model does not "
                f"know; it knows the atomic numbers {self.names}"
            )
        if not bool(torch.isfinite(places).all()):
            raise RuntimeError("pet_mlip: a position is not finite")
        cell = torch.eye(3, dtype=torch.float64, device=places.device)
        periodic = [False, False, False]
        if box is not None:
            cell = box.detach().to(torch.float64) * self.length
            periodic = [True, True, True]
            if pbc is not None:
                periodic = [bool(pbc[0]), bool(pbc[1]), bool(pbc[2])]
        pairs, vectors, shifts = find_neighbours(places, cell, periodic, self.cutoff)
        found = self.model(species, pairs, vectors, shifts)
        energies, gradient = found[0], found[1]
        forces = torch.zeros_like(places)
        forces = forces.index_add(0, pairs[0], gradient).index_add(0, pairs[1], -gradient)
        energy = energies.sum()
        if not bool(torch.isfinite(energy) & torch.isfinite(forces).all()):
            raise RuntimeError(
                "pet_mlip: energy or forces are not finite; do two atoms lie at the same place?"
            )
        return energy * self.energy, forces * (self.energy * self.length)


def find_neighbours(
    positions: Tensor,
    cell: Tensor,
    periodic: list[bool],
    cutoff: float,
    pairs_at_once: int = 4_000_000,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find all pairs within the cutoff, images of atoms included.

    Every pair is looked at, some rows at a time: the parts of a system that GROMACS gives to a
    network are small.

    Args:
        positions: In Å, (N, 3) float64.
        cell: Its vectors as rows, (3, 3); of no concern where it is not periodic.
        periodic: Along each of them.
        cutoff: In Å.
        pairs_at_once: Pairs whose distances are held in memory (50 bytes each).

    Returns:
        Centre and neighbour, (2, E); r_j - r_i + S cell in Å, (E, 3); S, (E, 3) int64; ordered by
        centre.
    """
    n_atoms = positions.shape[0]
    device = positions.device
    cell = completed(cell, periodic)
    inverse = torch.linalg.inv(cell)
    mask = torch.tensor(periodic, device=device).to(torch.float64)
    images = torch.zeros(1, 3, dtype=torch.float64, device=device)
    for axis in range(3):
        if periodic[axis]:
            # Differences are brought to half a cell first, so that n images on each side reach
            # (n + 1/2) times the height, the distance of two faces.
            height = 1.0 / float(torch.linalg.vector_norm(inverse[:, axis]))
            reach = int(cutoff / height + 0.5)
            steps = torch.arange(-reach, reach + 1, device=device).to(torch.float64)
            more = torch.zeros(steps.shape[0], 3, dtype=torch.float64, device=device)
            more[:, axis] = steps
            images = (images.unsqueeze(1) + more.unsqueeze(0)).reshape(-1, 3)
    rows = max(1, pairs_at_once // max(1, n_atoms * images.shape[0]))
    found_pairs: list[Tensor] = []
    found_vectors: list[Tensor] = []
    found_shifts: list[Tensor] = []
    for start in range(0, n_atoms, rows):
        centres = positions[start : start + rows]
        difference = positions.unsqueeze(0) - centres.unsqueeze(1)
        nearest = -torch.round(difference @ inverse) * mask
        shifts = nearest.unsqueeze(2) + images
        vectors = difference.unsqueeze(2) + shifts @ cell
        distance = torch.linalg.vector_norm(vectors, dim=-1)
        near = distance < cutoff
        centre = torch.arange(centres.shape[0], device=device)
        itself = centre.view(-1, 1, 1) + start == torch.arange(n_atoms, device=device).view(
            1, -1, 1
        )
        near = near & ~(itself & (shifts == 0.0).all(dim=-1))
        where = torch.nonzero(near)
        found_pairs.append(torch.stack([where[:, 0] + start, where[:, 1]]))
        found_vectors.append(vectors[near])
        found_shifts.append(shifts[near].to(torch.int64))
    if len(found_pairs) == 0:
        empty = torch.zeros(0, 3, dtype=torch.float64, device=device)
        return torch.zeros(2, 0, dtype=torch.int64, device=device), empty, empty.to(torch.int64)
    return torch.cat(found_pairs, dim=1), torch.cat(found_vectors), torch.cat(found_shifts)


def completed(cell: Tensor, periodic: list[bool]) -> Tensor:
    """Replace vectors along which nothing is periodic by unit vectors across all others."""
    vectors = cell.clone()
    span: list[Tensor] = []
    for axis in range(3):
        if periodic[axis]:
            span.append(torch.nn.functional.normalize(across(cell[axis], span), dim=0))
    unit = torch.eye(3, dtype=cell.dtype, device=cell.device)
    for axis in range(3):
        if not periodic[axis]:
            rest = torch.stack([across(unit[k], span) for k in range(3)])
            longest = int(torch.linalg.vector_norm(rest, dim=1).argmax())
            vectors[axis] = torch.nn.functional.normalize(rest[longest], dim=0)
            span.append(vectors[axis])
    return vectors


def across(vector: Tensor, span: list[Tensor]) -> Tensor:
    """Take away what of a vector lies along orthogonal unit vectors."""
    for direction in span:
        vector = vector - torch.dot(vector, direction) * direction
    return vector
