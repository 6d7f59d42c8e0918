"""What the layers read: the edges that count, in order, with their switch."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pet_mlip.graph.adaptive import average_cutoffs, solve_cutoffs
from pet_mlip.graph.cutoff import cutoff_switch
from pet_mlip.graph.hypers import SMALLEST_TRIAL_CUTOFF, PETHypers
from pet_mlip.graph.reach import Reach


class Inputs(NamedTuple):
    """E edges within the cutoff, ordered by centre, species as indices.

    Vectors, distance, switches and repulsion are differentiable in what they were made from.
    """

    species: Tensor
    """(N,) int64."""
    electronic: Tensor
    """Charge and spin multiplicity, (N, 2) int64."""
    centre: Tensor
    """(E,) int64."""
    neighbor_species: Tensor
    """(E,) int64."""
    reverse: Tensor
    """Reverse of each edge, (E,) int64."""
    vectors: Tensor
    """(E, 3) float64, Å."""
    distance: Tensor
    """Length of each edge in Å before any projection, (E,) float64."""
    switch: Tensor
    """Cutoff switch of each edge, (E,) float64."""
    frame_switch: Tensor
    """Switch of each edge for the frames, see `EdgeCutoffs.frame_switch`, (E,) float64."""
    repulsion: Tensor
    """Energy of each atom outside the network in eV, (N,) float64; in a domain, of its own."""
    reach: Reach
    """The leading atoms and edges that each layer is evaluated on."""


LARGEST_FRAME_WIDTH = 1.0
"""Largest width in Å over which a neighbour leaves the frames."""


class EdgeCutoffs(nn.Module):
    """Cutoff of each edge: the model's or, if adaptive, the mean of those of its two atoms."""

    def __init__(self, hypers: PETHypers) -> None:
        super().__init__()
        self.cutoff = hypers.cutoff
        self.width = hypers.switch_width
        self.largest_frame_width = LARGEST_FRAME_WIDTH
        self.function: str = hypers.cutoff_function
        self.adaptive = hypers.num_neighbors_adaptive is not None
        self.count = hypers.num_neighbors_adaptive or 0.0
        self.smallest = SMALLEST_TRIAL_CUTOFF
        self.count_width = hypers.cutoff_width_adaptive
        self.on_grid = hypers.adaptive_cutoff_method == "grid"
        self.exact = hypers.adaptive_cutoff_method == "exact"

    def forward(self, distance: Tensor, centre: Tensor, neighbor: Tensor, n_atoms: int) -> Tensor:
        """Cutoffs in Å, (E,); edges beyond the model's cutoff do not count.

        Args:
            distance: Lengths in Å, (E,) float64; all edges of every atom whose cutoff matters.
            centre: (E,) int64.
            neighbor: (E,) int64.
            n_atoms: N.
        """
        if not self.adaptive:
            return torch.full_like(distance, self.cutoff)
        if self.on_grid:
            of_atoms = average_cutoffs(
                distance,
                centre,
                n_atoms,
                self.count,
                self.smallest,
                self.cutoff,
                self.count_width,
            )
        else:
            of_atoms = solve_cutoffs(
                distance, centre, n_atoms, self.count, self.cutoff, self.count_width, self.exact
            )
        return 0.5 * (of_atoms.index_select(0, centre) + of_atoms.index_select(0, neighbor))

    def switch(self, distance: Tensor, cutoffs: Tensor) -> Tensor:
        """Cutoff switch of each edge, (E,)."""
        return cutoff_switch(distance, cutoffs, self.width, self.function)

    def frame_switch(self, distance: Tensor, cutoffs: Tensor, switch: Tensor) -> Tensor:
        """Switch of each edge for the frames, (E,): the cutoff switch, but of limited width.

        A wide cutoff function weakens near neighbours too, which all the same make frames.

        Args:
            distance: Lengths in Å, (E,) float64.
            cutoffs: (E,).
            switch: Cutoff switch of each edge, (E,).
        """
        if self.width <= self.largest_frame_width:
            return switch
        return cutoff_switch(distance, cutoffs, self.largest_frame_width, self.function)
