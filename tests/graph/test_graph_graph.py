"""Reverse edges, edges within the cutoff, and the padded layout."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st
from model_tools import empty_graph, graph_of, structures

from pet_mlip.graph.graph import (
    Graph,
    edges_within,
    electronic_state,
    pad_edges,
    reverse_edges,
    select_edges,
)


def graph_from_edges(n_atoms, edges):
    """A graph of edges (i, j, (S1, S2, S3)), without geometry."""
    index = torch.tensor([[i for i, _, _ in edges], [j for _, j, _ in edges]])
    shifts = torch.tensor([shift for _, _, shift in edges])
    species = torch.ones(n_atoms, dtype=torch.int64)
    vectors = torch.zeros(len(edges), 3, dtype=torch.float64)
    return Graph(species, index, vectors, shifts, electronic_state(n_atoms))


def expected_reverse(edges):
    place = {edge: index for index, edge in enumerate(edges)}
    return [place.get((j, i, tuple(-s for s in shift)), -1) for i, j, shift in edges]


shifts = st.tuples(*[st.integers(-3, 3)] * 3)


@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4), shifts), min_size=1), st.randoms())
def test_any_set_of_edges(edges, random):
    edges = sorted(edges)
    random.shuffle(edges)
    found = reverse_edges(graph_from_edges(5, edges))
    assert found.tolist() == expected_reverse(edges)


def test_images_of_one_pair_are_told_apart():
    edges = [(i, j, (s, 0, 0)) for i, j in [(0, 1), (1, 0)] for s in (-1, 0, 1)]
    assert reverse_edges(graph_from_edges(2, edges)).tolist() == [5, 4, 3, 2, 1, 0]


def test_self_images():
    edges = [(0, 0, (1, 0, 0)), (0, 0, (0, 1, 0)), (0, 0, (-1, 0, 0)), (0, 0, (0, -1, 0))]
    assert reverse_edges(graph_from_edges(1, edges)).tolist() == [2, 3, 0, 1]


def test_a_missing_reverse_is_minus_one():
    edges = [(0, 1, (0, 0, 0)), (1, 0, (0, 0, 1)), (2, 0, (0, 0, 0)), (0, 2, (0, 0, 0))]
    assert reverse_edges(graph_from_edges(3, edges)).tolist() == [-1, -1, 3, 2]


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
    assert reverse_edges(graph_from_edges(n_atoms, edges)).tolist() == expected_reverse(edges)


def test_atoms_that_left_their_cell_altogether():
    # Each atom has its own number of cells to go: differences are in the shifts.
    atoms = bulk("Si", cubic=True)
    cells = np.random.default_rng(0).integers(-10_000, 10_000, (8, 3))
    atoms.positions += cells @ atoms.cell.array
    graph = graph_of(atoms)
    reverse = reverse_edges(graph)
    assert (reverse >= 0).all()
    assert torch.equal(reverse[reverse], torch.arange(len(reverse)))
    assert torch.equal(graph.edge_shifts[reverse], -graph.edge_shifts)
    torch.testing.assert_close(graph.edge_vectors[reverse], -graph.edge_vectors)


@pytest.mark.parametrize("name", structures())
def test_the_reverse_has_the_opposite_vector(name):
    graph = graph_of(structures()[name])
    reverse = reverse_edges(graph)
    assert torch.equal(graph.edge_vectors[reverse], -graph.edge_vectors)
    assert torch.equal(graph.edge_index[:, reverse], graph.edge_index.flip(0))


def test_structures_of_a_batch_stay_apart():
    graph = graph_of(*structures().values())
    reverse = reverse_edges(graph)
    assert torch.equal(graph.edge_index[:, reverse], graph.edge_index.flip(0))


def test_no_edges():
    graph = empty_graph([1, 6])
    assert reverse_edges(graph).shape == (0,)
    assert edges_within(graph, 3.0).shape == (0,)
    padding = pad_edges(graph.edge_index[0], 2)
    assert padding.mask.shape == padding.edge.shape == (2, 0)


def test_the_cutoff_is_strict():
    graph = empty_graph([1, 1])
    vectors = torch.tensor([[3.0, 0, 0], [-3.0, 0, 0], [2.999, 0, 0], [0, 3.001, 0]])
    graph = graph._replace(
        edge_vectors=vectors.to(torch.float64),
        edge_index=torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1]]),
    )
    assert edges_within(graph, 3.0).tolist() == [2]


def test_edges_come_ordered_by_centre_and_otherwise_as_given():
    graph = graph_of(structures()["ethanol"], structures()["silicon"])
    shuffled = select_edges(graph, torch.randperm(graph.edge_index.shape[1]))
    found = edges_within(shuffled, 2.0)
    centre = shuffled.edge_index[0, found]
    assert torch.equal(centre, centre.sort().values)
    same_centre = centre[1:] == centre[:-1]
    assert (found[1:] > found[:-1])[same_centre].all()


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
