"""Contiguous pieces of the atoms and edges of a graph."""

from typing import NamedTuple

import torch
from torch import Tensor


class Chunk(NamedTuple):
    """Atoms [atom_start, atom_end) with their edges [edge_start, edge_end)."""

    atom_start: int
    atom_end: int
    edge_start: int
    edge_end: int


def slice_edges(values: Tensor, chunk: Chunk) -> Tensor:
    """The chunk's part of something on edges."""
    return values[chunk.edge_start : chunk.edge_end]


def extend(values: Tensor, n_rows: int) -> Tensor:
    """The values followed by rows of zeros."""
    missing = n_rows - values.shape[0]
    if missing == 0:
        return values
    return torch.cat([values, values.new_zeros(missing, values.shape[1])])


def split(tokens: Tensor, first_edge: Tensor, chunk_size: int) -> list[Chunk]:
    """Contiguous chunks of atoms of at most ``chunk_size`` tokens, or of a single atom.

    Args:
        tokens: Tokens of each atom, (N,) int64.
        first_edge: First edge of each atom, from 0 on, then their number, (N + 1,) int64.
        chunk_size: Bound; 0 for one chunk.
    """
    n_atoms = tokens.shape[0]
    # To the host at once.
    both = torch.stack([tokens.cumsum(0), first_edge[1:]]).cpu()
    cumulative, last_edge = both[0], both[1]
    chunks: list[Chunk] = []
    start, done, edge = 0, 0, 0
    while start < n_atoms:
        end = n_atoms
        if chunk_size > 0:
            bound = torch.full_like(cumulative[:1], done + chunk_size)
            end = max(int(torch.searchsorted(cumulative, bound, right=True)), start + 1)
        following = int(last_edge[end - 1])
        chunks.append(Chunk(start, end, edge, following))
        start, done, edge = end, int(cumulative[end - 1]), following
    return chunks
