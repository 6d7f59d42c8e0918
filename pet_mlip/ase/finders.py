"""Which program finds the neighbours: matscipy on the host, or vesin on a GPU."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pet_mlip.data.neighbours import Search, candidate_edges, count_bins, prepare_search

FEWEST_ATOMS = 500
"""Below, matscipy is done before a GPU has launched its kernels; not measured on a GPU so far."""
MOST_BINS = 10**8
"""vesin 0.6 counts the bins of a box in 32 bits."""


def find_candidates(
    positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Every directed pair of atoms within the cutoff, and a few slightly beyond, in any order.

    On a GPU vesin finds them there, if the optional package vesin-torch is installed and there are
    enough atoms to gain by it; otherwise matscipy does on the host. Arguments and errors are those
    of `pet_mlip.data.neighbours.neighbour_list`.

    Returns:
        Centre and neighbour, (2, E) int64, and cell shifts, (E, 3) int64, on the device.
    """
    search = prepare_search(positions, cell, pbc, cutoff)
    if suits_vesin(search, device):
        try:
            return vesin_candidates(search, device)
        # It is built for some versions of torch, loads CUDA's compiler, and has room for so many
        # pairs and no more.
        except (ImportError, OSError, RuntimeError) as error:
            warnings.warn(
                f"vesin could not find neighbours on {device}, so they are found on the CPU: "
                f"{error}",
                RuntimeWarning,
                stacklevel=2,
            )
    edge_index, shifts = candidate_edges(search)
    return torch.from_numpy(edge_index).to(device), torch.from_numpy(shifts).to(device)


def suits_vesin(search: Search, device: torch.device) -> bool:
    """Whether vesin is there, takes the structure, and is the quicker one."""
    return (
        device.type == "cuda"
        and len(search.positions) >= FEWEST_ATOMS
        and count_bins(search.box, search.reach) <= MOST_BINS
        and find_spec("vesin_torch") is not None
    )


def vesin_candidates(search: Search, device: torch.device) -> tuple[Tensor, Tensor]:
    """What `find_candidates` says, found by vesin on any device.

    vesin has separate code for mixed periodicity on each device. It is not used: every box is
    periodic in all directions, with vacuum where the structure is not.

    Raises:
        RuntimeError: More pairs than vesin has room for on a GPU, or atoms at the same place.
    """
    from vesin_torch import NeighborList

    box = search.box.copy()
    for axis in np.flatnonzero(~search.pbc):
        box[axis] *= 1.0 + search.reach / np.linalg.norm(box[axis])
    points = torch.from_numpy(search.positions).to(device)
    if len(torch.unique(points, dim=0)) < len(points):
        # On a GPU vesin leaves such pairs out, and nobody would notice.
        raise RuntimeError("some atoms are at the same place")
    finder = NeighborList(search.reach, full_list=True, algorithm="cell_list")
    pairs, images = finder.compute(
        points,
        torch.from_numpy(box).to(device),
        torch.ones(3, dtype=torch.bool, device=device),
        "PS",
    )
    index, shifts = pairs.to(torch.int64).t().contiguous(), images.to(torch.int64)
    if search.wraps.any():
        wraps = torch.from_numpy(search.wraps).to(device)
        shifts += wraps[index[0]] - wraps[index[1]]
    if search.reduction is not None:
        # There are no matrix products of integers on a GPU.
        reduction = torch.from_numpy(np.asarray(search.reduction, dtype=np.int64)).to(device)
        shifts = (shifts.unsqueeze(2) * reduction).sum(dim=1)
    return index, shifts
