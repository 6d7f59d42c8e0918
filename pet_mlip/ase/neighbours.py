"""A neighbour list that is kept on the device while nothing moved far enough to matter."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from pet_mlip.ase.checks import NEUTRAL, State
from pet_mlip.ase.finders import find_candidates
from pet_mlip.data.neighbours import complete_cell
from pet_mlip.graph.graph import Graph, electronic_state, find_reverse

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Crossing(NamedTuple):
    """The edges whose shift is not zero."""

    edges: Tensor
    """Which they are, (C,) int64."""
    shifts: Tensor
    """Their shifts, (C, 3) float64."""


class _Reference(NamedTuple):
    """The structure that the kept list was built for, on the host, and the list."""

    numbers: Ints
    pbc: NDArray[np.bool_]
    positions: Floats
    cell: Floats
    state: State
    graph: Graph
    """Without vectors."""
    crossing: Crossing


class SkinNeighbours:
    """Edges within a cutoff, found anew only when a pair outside the list could have come inside.

    The list reaches `skin` further than the cutoff and stays on the device, where the vectors are
    computed from the current positions and cell in every call, in an order that depends on nothing
    but the structure: what a model that drops edges beyond its cutoff says never depends on when
    the list was built. Copies and pickles build a list of their own.

    Args:
        cutoff: In Å.
        skin: In Å; 0 builds the list in every call.
        device: Of the model that the edges are for.
    """

    def __init__(self, cutoff: float, skin: float, device: torch.device) -> None:
        self.cutoff = cutoff
        self.skin = skin
        self.device = device
        self.n_builds = 0
        self._reference: _Reference | None = None

    def __call__(self, atoms: Atoms, state: State = NEUTRAL) -> Graph:
        """Find the edges of the structure within the cutoff, and possibly some beyond.

        Args:
            atoms: The structure.
            state: Its charge and spin multiplicity.
        """
        # What is kept must be of use to callers in inference mode and outside it.
        with torch.inference_mode(False), torch.no_grad():
            reference = self._reference
            if reference is None or not self._is_valid(reference, atoms):
                return self._build(atoms, state)
            graph = reference.graph
            if state != reference.state:
                electronic = electronic_state(len(atoms), *state).to(self.device)
                graph = graph._replace(electronic=electronic)
                self._reference = reference._replace(state=state, graph=graph)
            positions, cell = to_device(atoms.positions, atoms.cell.array, self.device)
            vectors = edge_vectors(positions, cell, graph.edge_index, reference.crossing)
            return graph._replace(edge_vectors=vectors)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_reference": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if not torch.cuda.is_available():
            self.device = torch.device("cpu")

    def _build(self, atoms: Atoms, state: State) -> Graph:
        reach = self.cutoff + self.skin
        graph, shifts = find_graph_and_shifts(atoms, reach, self.device, state)
        self.n_builds += 1
        self._reference = None
        if self.skin > 0:
            self._reference = _Reference(
                atoms.numbers.copy(),
                atoms.pbc.copy(),
                atoms.positions.copy(),
                atoms.cell.array.copy(),
                state,
                graph._replace(edge_vectors=graph.edge_vectors.new_zeros(0, 3)),
                crossing_edges(shifts),
            )
        return graph

    def _is_valid(self, reference: _Reference, atoms: Atoms) -> bool:
        if len(atoms) == 0 or not np.array_equal(reference.numbers, atoms.numbers):
            return False
        if not np.array_equal(reference.pbc, atoms.pbc):
            return False
        strain = deformation(reference.cell, atoms.cell.array, atoms.pbc)
        # A pair at v became v @ strain plus the difference of two displacements: what was beyond
        # cutoff + skin is now beyond shrink * (cutoff + skin) - 2 * farthest.
        shrink = np.linalg.svd(strain, compute_uv=False)[-1]
        displacement = atoms.positions - reference.positions @ strain
        displacement -= displacement.mean(axis=0)
        farthest = np.sqrt(np.max(np.einsum("ij,ij->i", displacement, displacement), initial=0.0))
        return bool(shrink * (self.cutoff + self.skin) - 2.0 * farthest > self.cutoff)


def deformation(old: Floats, new: Floats, pbc: NDArray[np.bool_]) -> Floats:
    """A matrix D for which ``old @ D == new`` in the periodic cell vectors, (3, 3)."""
    if np.array_equal(old[pbc], new[pbc]):
        return np.eye(3)
    strain = np.linalg.solve(complete_cell(old, pbc), complete_cell(new, pbc))
    return np.asarray(strain, dtype=np.float64)


def find_graph(atoms: Atoms, cutoff: float, device: torch.device, state: State = NEUTRAL) -> Graph:
    """Find the neighbours of a structure, ordered by centre, neighbour and shift.

    Args:
        atoms: The structure.
        cutoff: In Å.
        device: Of the graph.
        state: Charge and spin multiplicity of the structure.

    Raises:
        UserError: As `pet_mlip.data.neighbours.neighbour_list` does.
    """
    return find_graph_and_shifts(atoms, cutoff, device, state)[0]


def find_graph_and_shifts(
    atoms: Atoms, cutoff: float, device: torch.device, state: State
) -> tuple[Graph, Tensor]:
    """Find a graph and the cell shifts of its edges, (E, 3) int64; see `find_graph`."""
    n_atoms = len(atoms)
    with torch.inference_mode(False), torch.no_grad():
        pairs, shifts = find_candidates(
            atoms.positions, atoms.cell.array, atoms.pbc, cutoff, device
        )
        positions, cell = to_device(atoms.positions, atoms.cell.array, device)
        vectors = edge_vectors(positions, cell, pairs, crossing_edges(shifts))
        order = torch.nonzero((vectors * vectors).sum(dim=1) < cutoff * cutoff).squeeze(1)
        # Finders differ in the order of what they find.
        pair = pairs[0] * n_atoms + pairs[1]
        for key in (shifts[:, 2], shifts[:, 1], shifts[:, 0], pair):
            order = order[torch.argsort(key[order], stable=True)]
        pairs, shifts = pairs[:, order], shifts[order]
        # Some structures carry int32 numbers or read-only arrays: both are copied here.
        species = torch.from_numpy(np.array(atoms.numbers, dtype=np.int64)).to(device)
        graph = Graph(
            species,
            pairs,
            vectors[order],
            find_reverse(pairs, shifts, n_atoms),
            electronic_state(n_atoms, *state).to(device),
            [n_atoms],
        )
        return graph, shifts


def to_device(positions: Floats, cell: Floats, device: torch.device) -> tuple[Tensor, Tensor]:
    """Copies of positions and cell on the device, sent together."""
    sent = torch.from_numpy(np.concatenate([positions, cell], dtype=np.float64)).to(device)
    return sent[:-3], sent[-3:]


def crossing_edges(shifts: Tensor) -> Crossing:
    """The edges whose shift (E, 3) is not zero."""
    edges = torch.nonzero((shifts != 0).any(dim=1)).squeeze(1)
    return Crossing(edges, shifts[edges].to(torch.float64))


def edge_vectors(positions: Tensor, cell: Tensor, pairs: Tensor, crossing: Crossing) -> Tensor:
    """Vectors r_j - r_i + S @ cell of the edges, (E, 3) in Å, without waiting for the device.

    Element-wise as in `pet_mlip.data.neighbours.edge_vectors`, so that reverse edges have bitwise
    opposite vectors.
    """
    vectors = positions.index_select(0, pairs[1]) - positions.index_select(0, pairs[0])
    if crossing.edges.shape[0] == 0:
        return vectors
    shifts = crossing.shifts
    offset = shifts[:, 0:1] * cell[0] + shifts[:, 1:2] * cell[1]
    return vectors.index_add_(0, crossing.edges, offset + shifts[:, 2:3] * cell[2])
