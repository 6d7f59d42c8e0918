"""Tiles: pieces of a block's frames that stay in the cache while they are evaluated."""

from typing import NamedTuple

import torch
from torch import Tensor


class Tile(NamedTuple):
    """Some frames of a block that follow each other, evaluated at once by the embedding."""

    first: int
    """Number of the first frame within the block, and of the one after the last."""
    last: int
    first_atom: int
    """Number of an atom such that they belong to it or later ones, and to none from the next
    number on."""
    last_atom: int


def split_frames(owner: Tensor, n_frames: int, n_atoms: int, n_rows: int) -> list[Tile]:
    """Cut the frames of a block into tiles of a number of frames.

    Args:
        owner: Atom of each frame within the block, ascending, (P,) int64.
        n_frames: P.
        n_atoms: Atoms of the block.
        n_rows: Frames of a tile.
    """
    if n_frames <= n_rows:
        return [Tile(0, n_frames, 0, n_atoms)]
    tiles: list[Tile] = []
    if owner.is_cuda:
        # To know whose frames they are the host would have to wait.
        for start in range(0, n_frames, n_rows):
            tiles.append(Tile(start, min(start + n_rows, n_frames), 0, n_atoms))
        return tiles
    starts = torch.arange(0, n_frames, n_rows, device=owner.device)
    ends = (starts + n_rows).clamp(max=n_frames)
    bounds = [starts, ends, owner.index_select(0, starts), owner.index_select(0, ends - 1) + 1]
    facts: list[list[int]] = torch.stack(bounds).tolist()
    for k in range(len(facts[0])):
        tiles.append(Tile(facts[0][k], facts[1][k], facts[2][k], facts[3][k]))
    return tiles
