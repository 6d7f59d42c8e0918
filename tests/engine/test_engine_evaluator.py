"""Inference is the eager model and its derivative, however the work is cut into pieces."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_tools import (
    ENSEMBLES,
    FEATURIZERS,
    assert_same,
    empty_graph,
    graph_of,
    make_potential,
    structures,
)

from pet_mlip.engine.precision import set_precision
from pet_mlip.graph.chunks import split

MODELS = [(e, f) for e in ENSEMBLES for f in FEATURIZERS]
VARIANTS = [
    {"normalization": "LayerNorm"},
    {"transformer_type": "PostLN"},
    {"transformer_type": "PostLN", "normalization": "LayerNorm", "d_node": 8},
    {"d_node": 8, "activation": "SiLU"},
    {"num_radial": 0, "num_attention_layers": 2, "attention_temperature": 1.7},
    {"zbl": True, "system_conditioning": True, "cutoff_function": "Cosine"},
    {"num_gnn_layers": 1},
]


def size_of(values):
    """The largest number: some of these random networks have gradients of 100 eV/Å."""
    return float(values.detach().abs().max())


@pytest.fixture(params=MODELS, ids=["-".join(m) for m in MODELS], scope="module")
def potential(request):
    return make_potential(*request.param, num_gnn_layers=3)


def eager(potential, graph, weights):
    """Energies, and the gradient of their weighted sum, by autograd."""
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    energies = potential(graph._replace(edge_vectors=vectors))
    (gradient,) = torch.autograd.grad((energies * weights).sum(), vectors)
    return energies.detach(), gradient


def evaluate(potential, graph, weights, compute_gradient, chunk_size, precision="float64", **sizes):
    """Energies, gradient over the given edges, and numbers of frames."""
    potential = copy.deepcopy(potential)
    set_precision(potential.pet, precision)
    for name, size in sizes.items():
        assert hasattr(potential, name)
        setattr(potential, name, size)
    vectors = graph.edge_vectors.clone().requires_grad_(compute_gradient)
    inputs = potential.preparation(graph._replace(edge_vectors=vectors))
    energies, (gradient,), n_frames, *_ = potential.evaluate(
        [vectors], inputs, weights, compute_gradient, chunk_size
    )
    return energies, gradient, n_frames


def some_graph(potential):
    """Edges beyond the cutoff, as a list with a skin has them; weights."""
    atoms = [structures()[name] for name in ("water", "skewed", "atom", "self-images")]
    graph = graph_of(*atoms, cutoff=potential.cutoff + 0.3)
    return graph, torch.linspace(-1, 1, len(graph.species), dtype=torch.float64)


@pytest.mark.parametrize(
    ("chunk_size", "sizes"),
    [
        (0, {}),
        (1, {"block_size_cpu": 30}),
        (60, {"block_size_cpu": 30, "piece_size_cpu": 20}),
        (10**6, {"piece_size_cpu": 20}),
    ],
)
def test_same_as_eager(potential, chunk_size, sizes):
    graph, weights = some_graph(potential)
    expected, expected_gradient = eager(potential, graph, weights)
    energies, gradient, n_frames = evaluate(potential, graph, weights, True, chunk_size, **sizes)
    assert_same(energies, expected, 1e-12)
    assert_same(gradient, expected_gradient, 1e-12 * max(size_of(expected_gradient), 1.0))
    assert torch.equal(n_frames, potential.count_frames(graph))
    assert not energies.requires_grad


@pytest.mark.parametrize("ensemble", ["none", "closest_pairs"])
@pytest.mark.parametrize("featurizer", FEATURIZERS)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_every_architecture(variant, featurizer, ensemble):
    potential = make_potential(ensemble, featurizer, **variant)
    graph, weights = some_graph(potential)
    expected, expected_gradient = eager(potential, graph, weights)
    energies, gradient, _ = evaluate(potential, graph, weights, True, 100, block_size_cpu=40)
    size = float(expected_gradient.abs().max())
    assert size > 1e-3
    assert_same(energies, expected, 1e-12)
    assert_same(gradient, expected_gradient, 1e-13 * max(size, 10))


def test_twice_the_same_bits(potential):
    graph, weights = some_graph(potential)
    first, second = (evaluate(potential, graph, weights, True, 0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_without_gradient(potential):
    graph = graph_of(structures()["skewed"])
    weights = torch.ones(2, dtype=torch.float64)
    energies, gradient, _ = evaluate(potential, graph, weights, False, 30)
    assert_same(energies, potential(graph), 1e-12)
    assert gradient.shape == graph.edge_vectors.shape
    assert not gradient.any()


@pytest.mark.parametrize("species", [[], [6], [1, 8]])
def test_without_edges(potential, species):
    check_without_edges(potential, species)


def test_without_edges_and_norms_last():
    check_without_edges(make_potential("closest_pairs", transformer_type="PostLN"), [1, 8])


def check_without_edges(potential, species):
    graph = empty_graph(species)
    weights = torch.ones(len(species), dtype=torch.float64)
    energies, gradient, n_frames = evaluate(potential, graph, weights, True, 1)
    assert_same(energies, potential(graph), 1e-13)
    assert gradient.shape == (0, 3)
    assert n_frames.tolist() == [1] * len(species)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6))), st.integers(0, 40))
def test_chunks(atoms, chunk_size):
    n_neighbors = torch.tensor([n for n, _ in atoms], dtype=torch.int64)
    tokens = torch.tensor([(n + 1) * frames for n, frames in atoms], dtype=torch.int64)
    first_edge = torch.cat([torch.zeros(1, dtype=torch.int64), n_neighbors.cumsum(0)])
    chunks = split(tokens, first_edge, chunk_size)
    covered = [atom for c in chunks for atom in range(c.atom_start, c.atom_end)]
    assert covered == list(range(len(atoms)))
    if chunk_size == 0:
        assert len(chunks) <= 1
    for c in chunks:
        assert c.edge_end - c.edge_start == int(n_neighbors[c.atom_start : c.atom_end].sum())
        size = int(tokens[c.atom_start : c.atom_end].sum())
        assert chunk_size == 0 or size <= chunk_size or c.atom_end - c.atom_start == 1
