"""Blocks of environments: the pieces, small enough for the caches, that layers are evaluated on."""

from typing import NamedTuple

import torch
from torch import Tensor

from pet_mlip.ecse.frames import Frames, count_frames
from pet_mlip.graph.graph import count_each
from pet_mlip.graph.inputs import Inputs
from pet_mlip.network.rotation import rotate_places
from pet_mlip.network.tiles import Tile, split_frames


class Block(NamedTuple):
    """n environments with at most M neighbours, in a padded layout with T = M + 1 tokens.

    Frames of one environment follow each other.
    """

    atoms: Tensor
    """The centres, (n,) int64."""
    edges: Tensor
    """The edges out of the atoms, (e,) int64."""
    places: Tensor
    """Where each of them is in the flattened (n * M) layout, (e,) int64."""
    padded: Tensor
    """Edge in each place, (n * M) int64; empty places hold one of the edges."""
    empty: Tensor
    """True in empty places, (n, M, 1) bool, or nothing if none is empty."""
    log_switch: Tensor
    """log f of each token, that of the centre first, (n, T) in the network's dtype."""
    vectors: Tensor
    """r_j - r_i of each place in Å, (n, M, 3) float64."""
    frames: Tensor
    """Index among all frames, (P,) int64; nothing for a plain model."""
    owner: Tensor
    """Which of the atoms each frame belongs to, ascending, (P,) int64; nothing if plain."""
    matrix: Tensor
    """Of each frame, (P, 3, 3) float64; nothing if coordinates are taken as they are."""
    weight: Tensor
    """Of each frame, (P,) in the network's dtype; nothing if each atom has one of weight 1."""
    rotated: Tensor
    """See `rotate`; nothing where it is made anew for each use."""
    tiles: list[Tile]
    """All frames; none if plain."""
    last_layer: int
    """Last layer that the atoms are centres in."""
    n_tokens: int
    """n * T."""


class Share(NamedTuple):
    """What a block is made of, and how large it is: all that the host has to know."""

    atoms: Tensor
    """(n,) int64."""
    width: int
    """Largest number of neighbours, M."""
    n_edges: int
    n_frames: int
    last_layer: int


def split_atoms(
    inputs: Inputs, n_neighbors: Tensor, n_frames: Tensor, block_size: int
) -> list[Share]:
    """Share out the centres.

    Atoms are sorted by their number of neighbours, so that little is padded, and those that fewer
    layers need come in blocks of their own.

    Args:
        inputs: The graph.
        n_neighbors: Edges of each centre, (N,) int64.
        n_frames: Frames of each centre, (N,) int64.
        block_size: Tokens of a block.
    """
    reach = inputs.reach.atoms
    n_layers = len(reach) - 1
    shares: list[Share] = []
    start = 0
    for step in range(n_layers):
        layer = n_layers - 1 - step
        end = reach[layer]
        if end <= start:
            continue
        order = start + torch.argsort(n_neighbors[start:end], stable=True)
        width = n_neighbors.index_select(0, order)
        of_frames = n_frames.index_select(0, order)
        block = torch.div((width + 1).cumsum(0) - 1, block_size, rounding_mode="floor")
        size = torch.bincount(block)
        widest = width.index_select(0, (size.cumsum(0) - 1).clamp(min=0))
        n_edges = torch.zeros_like(size).index_add_(0, block, width)
        frames = torch.zeros_like(size).index_add_(0, block, of_frames)
        facts: list[list[int]] = torch.stack([size, widest, n_edges, frames]).tolist()
        done = 0
        for k in range(len(facts[0])):
            following = done + facts[0][k]
            if following > done:
                atoms = order[done:following]
                shares.append(Share(atoms, facts[1][k], facts[2][k], facts[3][k], layer))
            done = following
        start = end
    return shares


class Padded(NamedTuple):
    """The edges of a block in its padded layout; fields as in `Block`."""

    edges: Tensor
    places: Tensor
    padded: Tensor
    empty: Tensor


class OfFrames(NamedTuple):
    """The frames of a block; fields as in `Block`."""

    frames: Tensor
    owner: Tensor
    matrix: Tensor


def make_blocks(
    inputs: Inputs, frames: Frames, plain: bool, block_size: int, width: int, dtype: torch.dtype
) -> list[Block]:
    """Arrange all centres in blocks; differentiable if the inputs are.

    Args:
        inputs: The graph.
        frames: Of its centres.
        plain: Whether each atom has one frame, the identity, of weight one.
        block_size: Tokens (neighbours + 1, summed over atoms) of a block, roughly.
        width: Of the token features.
        dtype: Of the network.
    """
    n_atoms = inputs.reach.atoms[0]
    n_neighbors = count_each(inputs.centre, n_atoms)
    first_edge = n_neighbors.cumsum(0) - n_neighbors
    n_frames = count_frames(frames, n_atoms)
    first_frame = n_frames.cumsum(0) - n_frames
    # Each atom has a frame, so as many frames as atoms means exactly one each, of weight one.
    single = frames.atom.shape[0] == n_atoms
    log_switch = log_of(inputs.switch).to(dtype)
    # Of frames, places and features: what stays in a core's cache; half a gigabyte on a GPU.
    numbers = 134217728 if inputs.vectors.is_cuda else 131072

    blocks: list[Block] = []
    shares = split_atoms(inputs, n_neighbors, n_frames, block_size)
    # All layers share what autograd records; of many blocks it would be most of the memory.
    keep_rotated = torch.is_grad_enabled() or len(shares) == 1
    for share in shares:
        n, n_places = share.atoms.shape[0], share.width
        edges = pad_share(share, n_neighbors, first_edge)
        logs = log_switch.index_select(0, edges.padded).reshape(n, n_places)
        if edges.empty.shape[0] > 0:
            logs = logs.masked_fill(edges.empty.squeeze(2), -float("inf"))
        vectors = inputs.vectors.index_select(0, edges.padded).reshape(n, n_places, 3)
        own = OfFrames(share.atoms[:0], share.atoms[:0], frames.matrix[:0])
        weight, rotated = log_switch[:0], log_switch[:0]
        tiles: list[Tile] = []
        if not plain:
            own = select_frames(share, frames, n_frames, first_frame)
            if not single:
                weight = frames.weight.index_select(0, own.frames).to(dtype)
                n_rows = max(numbers // max(n_places * width, 1), 1)
                tiles = split_frames(own.owner, share.n_frames, n, n_rows)
        if keep_rotated:
            rotated = coordinates_of(vectors, own, dtype)
        blocks.append(
            Block(
                share.atoms,
                edges.edges,
                edges.places,
                edges.padded,
                edges.empty,
                torch.nn.functional.pad(logs, [1, 0]),  # the centre's own is not switched
                vectors,
                own.frames,
                own.owner,
                own.matrix,
                weight,
                rotated,
                tiles,
                share.last_layer,
                n * (n_places + 1),
            )
        )
    return blocks


def log_of(switch: Tensor) -> Tensor:
    """Return the log of the cutoff function, minus infinity (and constant) where it is zero."""
    present = switch.detach() > 0.0
    log = torch.where(present, switch, torch.ones_like(switch)).log()
    return log.masked_fill(~present, -float("inf"))


def pad_share(share: Share, n_neighbors: Tensor, first_edge: Tensor) -> Padded:
    """Give each edge of a block its place.

    Args:
        share: Of the centres.
        n_neighbors: Edges of each centre, (N,) int64; edges are ordered by centre.
        first_edge: Of each centre, (N,) int64.
    """
    atoms, n, n_places, n_edges = share.atoms, share.atoms.shape[0], share.width, share.n_edges
    count, first = n_neighbors.index_select(0, atoms), first_edge.index_select(0, atoms)
    slot = torch.arange(n_places, device=atoms.device)
    padded = (first[:, None] + slot[None, :]).reshape(-1)
    places, edges = torch.arange(n_edges, device=atoms.device), padded
    empty = torch.zeros(0, n_places, 1, dtype=torch.bool, device=atoms.device)
    if n_edges < n * n_places:
        row = torch.arange(n, device=atoms.device)
        row = torch.repeat_interleave(row, count, output_size=n_edges)
        places = places + (row * n_places - (count.cumsum(0) - count).index_select(0, row))
        edges = padded.index_select(0, places)
        empty = (slot[None, :] >= count[:, None]).unsqueeze(2)
        # Edges of other atoms may be out of the layer's reach.
        padded = torch.where(empty.reshape(-1), edges[:1], padded)
    return Padded(edges, places, padded, empty)


def select_frames(share: Share, frames: Frames, n_frames: Tensor, first_frame: Tensor) -> OfFrames:
    """Find the frames of a block's atoms.

    Args:
        share: Of the centres.
        frames: Of all centres.
        n_frames: Of each centre, (N,) int64.
        first_frame: Of each centre, (N,) int64.
    """
    owner = torch.arange(share.atoms.shape[0], device=share.atoms.device)
    of_atoms = n_frames.index_select(0, share.atoms)
    owner = torch.repeat_interleave(owner, of_atoms, output_size=share.n_frames)
    number = first_frame.index_select(0, share.atoms) - (of_atoms.cumsum(0) - of_atoms)
    number = number.index_select(0, owner)
    number = number + torch.arange(share.n_frames, device=share.atoms.device)
    return OfFrames(number, owner, frames.matrix.index_select(0, number))


def rotate(block: Block) -> Tensor:
    """Return the neighbours in each frame, (P * M, 3) in the network's dtype; plain, (n * M, 3)."""
    if block.rotated.shape[0] > 0:
        return block.rotated
    own = OfFrames(block.frames, block.owner, block.matrix)
    return coordinates_of(block.vectors, own, block.log_switch.dtype)


def coordinates_of(vectors: Tensor, own: OfFrames, dtype: torch.dtype) -> Tensor:
    """See `rotate`; arguments as in `Block`."""
    if own.matrix.shape[0] > 0:
        return rotate_places(vectors, own.owner, own.matrix, dtype)
    return vectors.reshape(-1, 3).to(dtype)
