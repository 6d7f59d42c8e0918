"""Every frame is in one block, and a block reads its own edges only."""

import pytest
import torch
from ase.build import molecule
from domain_tools import domain_of
from model_tools import graph_of, make_potential, rattled, structures

from pet_mlip.network.blocks import make_blocks

CUTOFF = 3.0


def whole(potential):
    return potential.preparation(graph_of(*structures().values()))


def domain(potential):
    """Inputs of which later layers need a part; neighbour numbers differ among the atoms."""
    atoms = rattled(molecule("CH3CH2OH"))
    reach = potential.pet_hypers.interaction_range
    d = domain_of(atoms, [0], CUTOFF, reach, reach)
    return potential.preparation(d.graph)


@pytest.mark.parametrize("inputs_of", [whole, domain])
@pytest.mark.parametrize("ensemble", ["none", "closest_pairs"])
@pytest.mark.parametrize("block_size", [1, 25, 10**6])
def test_blocks(inputs_of, ensemble, block_size):
    potential = make_potential(ensemble, num_gnn_layers=2, cutoff=CUTOFF)
    inputs = inputs_of(potential)
    plain = ensemble == "none"
    frames, _ = potential.find_frames(inputs, potential.split(inputs, plain))
    n_atoms = inputs.reach.atoms[0]
    blocks = make_blocks(inputs, frames, plain, block_size, potential.pet.width, torch.float64)
    if ensemble != "none":
        all_frames = torch.cat([b.frames for b in blocks])
        assert torch.equal(all_frames.sort().values, torch.arange(len(frames.atom)))
    assert torch.equal(torch.cat([b.atoms for b in blocks]).sort().values, torch.arange(n_atoms))
    n_neighbors = torch.bincount(inputs.centre, minlength=n_atoms)
    for b in blocks:
        assert torch.equal(b.atoms[b.owner], frames.atom[b.frames])
        bounds = [0] + [tile.last for tile in b.tiles]
        assert [tile.first for tile in b.tiles] == bounds[:-1]
        assert bounds[-1] == (len(b.owner) if len(b.weight) else 0)
        for tile in b.tiles:
            owners = b.owner[tile.first : tile.last]
            assert tile.first_atom <= owners.min() and owners.max() < tile.last_atom
        assert torch.equal(b.padded[b.places], b.edges)
        assert len(b.edges) == n_neighbors[b.atoms].sum()
        assert set(inputs.centre[b.padded].tolist()) <= set(b.atoms.tolist())
        assert (b.padded < inputs.reach.edges[b.last_layer]).all()
        assert b.atoms.max() < inputs.reach.atoms[b.last_layer]
        n_tokens = int((n_neighbors[b.atoms] + 1).sum())
        assert n_tokens <= b.n_tokens
        assert n_tokens <= block_size + int(n_neighbors.max()) + 1
