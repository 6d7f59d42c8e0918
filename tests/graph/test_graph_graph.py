"""Reverse edges, edges within the cutoff, and the padded layout."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st
from model_tools import (
    CUTOFF,
    assert_same_graph,
    empty_graph,
    graph_of,
    make_potential,
    shifts_of,
    structures,
)

from pet_mlip.errors import UserError
from pet_mlip.graph.graph import find_reverse, pad_edges, select_edges, sort_edges


def reverse_of(n_atoms, edges):
    """Reverses of edges (i, j, (S1, S2, S3))."""
    index = torch.tensor([[i for i, _, _ in edges], [j for _, j, _ in edges]])
    return find_reverse(index, torch.tensor([shift for _, _, shift in edges]), n_atoms)


def expected_reverse(edges):
    place = {edge: index for index, edge in enumerate(edges)}
    return [place.get((j, i, tuple(-s for s in shift)), -1) for i, j, shift in edges]


shifts = st.tuples(*[st.integers(-3, 3)] * 3)


@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4), shifts), min_size=1), st.randoms())
def test_any_set_of_edges(edges, random):
    edges = sorted(edges)
    random.shuffle(edges)
    found = reverse_of(5, edges)
    assert found.tolist() == expected_reverse(edges)


def test_images_of_one_pair_are_told_apart():
    edges = [(i, j, (s, 0, 0)) for i, j in [(0, 1), (1, 0)] for s in (-1, 0, 1)]
    assert reverse_of(2, edges).tolist() == [5, 4, 3, 2, 1, 0]


def test_self_images():
    edges = [(0, 0, (1, 0, 0)), (0, 0, (0, 1, 0)), (0, 0, (-1, 0, 0)), (0, 0, (0, -1, 0))]
    assert reverse_of(1, edges).tolist() == [2, 3, 0, 1]


def test_a_missing_reverse_is_minus_one():
    edges = [(0, 1, (0, 0, 0)), (1, 0, (0, 0, 1)), (2, 0, (0, 0, 0)), (0, 2, (0, 0, 0))]
    assert reverse_of(3, edges).tolist() == [-1, -1, 3, 2]


@pytest.mark.parametrize("n_atoms", [2, 1000])
@pytest.mark.parametrize("size", [1000, 4000])
def test_large_shifts_of_unwrapped_atoms(n_atoms, size):
    draw = np.random.default_rng(0)
    some = np.concatenate(
        [draw.integers(0, n_atoms, (300, 2)), draw.integers(-size, size + 1, (300, 3))], axis=1
    )
    forward = [(i, j, (a, b, c)) for i, j, a, b, c in some.tolist()]
    backward = [(j, i, (-a, -b, -c)) for i, j, (a, b, c) in forward]
    edges = sorted({*forward, *backward[:200]})
    assert reverse_of(n_atoms, edges).tolist() == expected_reverse(edges)


def test_atoms_that_left_their_cell_altogether():
    # Each atom has its own number of cells to go: differences are in the shifts.
    atoms = bulk("Si", cubic=True)
    cells = np.random.default_rng(0).integers(-10_000, 10_000, (8, 3))
    atoms.positions += cells @ atoms.cell.array
    graph, shifts = graph_of(atoms), shifts_of(atoms)
    reverse = graph.reverse
    assert (reverse >= 0).all()
    assert torch.equal(reverse[reverse], torch.arange(len(reverse)))
    assert torch.equal(shifts[reverse], -shifts)
    torch.testing.assert_close(graph.edge_vectors[reverse], -graph.edge_vectors)


@pytest.mark.parametrize("name", structures())
def test_the_reverse_has_the_opposite_vector(name):
    graph = graph_of(structures()[name])
    assert torch.equal(graph.edge_vectors[graph.reverse], -graph.edge_vectors)
    assert torch.equal(graph.edge_index[:, graph.reverse], graph.edge_index.flip(0))


def test_structures_of_a_batch_stay_apart():
    graph = graph_of(*structures().values())
    assert torch.equal(graph.edge_index[:, graph.reverse], graph.edge_index.flip(0))


def test_no_edges():
    graph = empty_graph([1, 6])
    no_shifts = torch.zeros(0, 3, dtype=torch.int64)
    found = sort_edges(*graph[:3], no_shifts, graph.electronic, 3.0)
    assert found.reverse.shape == (0,)
    assert select_edges(found, found.reverse < 0).edge_index.shape == (2, 0)
    padding = pad_edges(found.edge_index[0], 2)
    assert padding.mask.shape == padding.edge.shape == (2, 0)


def test_the_cutoff_is_strict():
    alone = empty_graph([1, 1])
    vectors = torch.tensor([[3.0, 0, 0], [-3.0, 0, 0], [2.999, 0, 0], [0, 3.001, 0]])
    index = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1]])
    shifts = torch.zeros(4, 3, dtype=torch.int64)
    found = sort_edges(alone.species, index, vectors.double(), shifts, alone.electronic, 3.0)
    assert torch.equal(found.edge_vectors, vectors[2:3].double())


def test_edges_come_ordered_by_centre_and_otherwise_as_given():
    atoms = [structures()["ethanol"], structures()["silicon"]]
    graph, shifts = graph_of(*atoms), torch.cat([shifts_of(each) for each in atoms])
    order = torch.randperm(graph.edge_index.shape[1], generator=torch.Generator().manual_seed(0))
    index, vectors = graph.edge_index[:, order], graph.edge_vectors[order]
    found = sort_edges(graph.species, index, vectors, shifts[order], graph.electronic, 2.0)
    near = torch.nonzero(vectors.norm(dim=1) < 2.0).squeeze(1)
    near = near[torch.argsort(index[0, near], stable=True)]
    assert 0 < len(near) < len(vectors)
    assert torch.equal(found.edge_index, index[:, near])
    assert torch.equal(found.edge_vectors, vectors[near])
    assert torch.equal(found.edge_vectors[found.reverse], -found.edge_vectors)
    assert found.atoms_within == [len(graph.species)]


def test_edges_out_of_order_are_refused():
    graph = graph_of(structures()["ethanol"])
    order = torch.arange(len(graph.reverse) - 1, -1, -1)
    wrong = graph._replace(
        edge_index=graph.edge_index[:, order], edge_vectors=graph.edge_vectors[order]
    )
    with pytest.raises(UserError, match="sort_edges"):
        make_potential()(wrong)


@pytest.mark.parametrize("name", ["ethanol", "skewed", "self-images", "atom"])
def test_edges_that_stay_find_their_reverse(name):
    """As if those that are left out had never been found."""
    atoms = structures()[name]
    graph = graph_of(atoms, cutoff=CUTOFF + 1.0)
    found = select_edges(graph, graph.edge_vectors.norm(dim=1) < CUTOFF)
    assert_same_graph(found, graph_of(atoms))


@given(st.lists(st.integers(0, 4), max_size=7))
def test_padded_layout(count):
    centre = torch.repeat_interleave(torch.arange(len(count)), torch.tensor(count).long())
    padding = pad_edges(centre, len(count))
    width = max(count, default=0)
    assert padding.mask.shape == (len(count), width)
    assert padding.mask.sum(dim=1).tolist() == count
    assert torch.equal(padding.edge[padding.mask], torch.arange(len(centre)))
    if len(centre) > 0:
        assert padding.edge.max() < len(centre)
