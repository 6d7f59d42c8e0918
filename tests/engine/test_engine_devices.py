"""Nothing on the path of a GPU is left on the CPU, and the host seldom waits."""

from collections import Counter

import numpy as np
import pytest
import torch
from model_files import small_potential
from model_tools import (
    ENSEMBLES,
    FEATURIZERS,
    assert_same,
    dense_crystal,
    edges_of,
    graph_of,
    lists_of,
    make_potential,
    shifts_of,
    structures,
)
from pretended_device import DEVICE, Elsewhere, PretendedDevice, move, unwrap
from torch.utils._pytree import tree_leaves
from uncertainty_tools import with_uncertainty

from pet_mlip import PETCalculator
from pet_mlip.engine.precision import set_precision
from pet_mlip.export import LoadedModel, load_model, save_model
from pet_mlip.export.module import ExportedModel
from pet_mlip.export.selfcheck import random_cluster
from pet_mlip.graph.graph import map_tensors

MODELS = [(e, f, {}) for e in ENSEMBLES for f in FEATURIZERS]
MODELS += [
    ("closest_pairs", "feedforward", {"transformer_type": "PostLN", "normalization": "LayerNorm"}),
    ("none", "feedforward", {"zbl": True, "system_conditioning": True, "activation": "SiLU"}),
    ("none", "residual", {"num_neighbors_adaptive": 4.0, "adaptive_cutoff_method": "solver"}),
    ("none", "residual", {"num_neighbors_adaptive": 4.0, "adaptive_cutoff_method": "grid"}),
    ("closest_pairs", "residual", {"results": ["charges", "dipole", "polarizability"]}),
]


def exported(ensemble, featurizer="feedforward", precision="float64", **options):
    model = ExportedModel(with_uncertainty(make_potential(ensemble, featurizer, **options)))
    set_precision(model.potential.pet, precision)
    return model


def to_device(tensor):
    return tensor.to(DEVICE)


def sent(tensors):
    return [to_device(x) if isinstance(x, torch.Tensor) else x for x in tensors]


def tensors_of(found):
    """What was returned, the results by name included."""
    return [x for x in tree_leaves(found) if isinstance(x, torch.Tensor)]


@pytest.fixture
def graph():
    return graph_of(*(structures()[name] for name in ("ethanol", "slab", "atom")))


@pytest.mark.parametrize(
    ("ensemble", "featurizer", "options", "precision"),
    [(*model, "float64") for model in MODELS] + [(*model, "bf16-mixed") for model in MODELS[2:8:3]],
)
def test_everything_is_on_the_device(graph, ensemble, featurizer, options, precision):
    model = exported(ensemble, featurizer, precision, **options)
    model.potential.piece_size_cpu = model.potential.block_size_cpu = 60
    # Some blocks are evaluated again.
    expected = model(**edges_of(graph), chunk_size=120, uncertainty=2)
    with PretendedDevice():
        found = move(model)(
            **edges_of(map_tensors(graph, to_device)), chunk_size=120, uncertainty=2
        )
    bound = 1e-12 if precision == "float64" else 1e-2
    for x, y in zip(tensors_of(found), tensors_of(expected), strict=True):
        assert isinstance(x, Elsewhere)
        assert_same(unwrap(x), y, bound * max(1.0, float(y.abs().max())))


def test_edges_are_sorted_on_the_device(graph):
    model = exported("closest_pairs")
    shifts = torch.cat([shifts_of(structures()[name]) for name in ("ethanol", "slab", "atom")])
    order = torch.randperm(len(shifts), generator=torch.Generator().manual_seed(0))
    moved = graph.species, graph.edge_index[:, order], graph.edge_vectors[order], shifts[order]
    energies, gradient, *_ = model(**edges_of(graph))
    with PretendedDevice():
        found = move(model)(*sent(moved))
    assert_same(unwrap(found[0]), energies)
    assert_same(unwrap(found[1]), gradient[order])


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_domains_are_too(ensemble):
    model = exported(ensemble)
    positions, graph = random_cluster([1, 6, 8], 3.0)
    lists = lists_of(graph)
    ends, virials = graph.edge_index[1], {"atomic_virials": True, "centroid_virials": True}
    vectors = graph.edge_vectors
    distances = torch.linalg.vector_norm(vectors, dim=1)
    virials["uncertainty"] = 2
    expected = model.drive(positions, ends, *lists, **virials)
    of_domain = model.evaluate_domain(vectors, distances, *lists)
    with PretendedDevice():
        moved = move(model)
        place = sent(lists)
        found = moved.drive(*sent((positions, ends, *place)), **virials)
        again = moved.evaluate_domain(vectors.to(DEVICE), distances.to(DEVICE), *place)
    pairs = zip(tensors_of([*found, *again]), tensors_of([*expected, *of_domain]), strict=True)
    for x, y in pairs:
        assert isinstance(x, Elsewhere)
        assert_same(unwrap(x), y)


def test_the_calculator_sends_positions_only(tmp_path):
    potential = small_potential()
    save_model(tmp_path / "model.pt", potential, dtype="float64")
    loaded = load_model(tmp_path / "model.pt", device="cpu")
    on_cpu = PETCalculator(loaded, chunk_size=0)
    atoms = structures()["skewed"]
    atoms.set_atomic_numbers([6, 8])
    with PretendedDevice() as device:
        module = move(ExportedModel(potential.set_dtype(torch.float64)))
        there = PETCalculator(
            LoadedModel(module, loaded.metadata, DEVICE, "float64"), skin=0.3, chunk_size=0
        )
        for _ in range(2):
            atoms.rattle(0.01, rng=np.random.default_rng(1))
            found = there.get_property("forces", atoms)
            stress = there.results["stress"]
        assert there.info["neighbour_builds"] == 1
        # Energies, frames, forces, virials come back.
        device.waits.clear()
        there.calculate(atoms, ["forces"])
        assert device.waits["_to_copy"] <= 6
    np.testing.assert_allclose(found, on_cpu.get_property("forces", atoms), atol=1e-12)
    np.testing.assert_allclose(stress, on_cpu.get_property("stress", atoms), atol=1e-12)


def waits_of(ensemble, graph, block_size):
    with PretendedDevice() as device:
        model = move(exported(ensemble))
        model.potential.block_size_cpu = block_size
        moved = edges_of(map_tensors(graph, to_device))
        device.waits.clear()
        model(**moved)
    return device.waits


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_the_host_does_not_wait_for_each_block(graph, ensemble):
    assert waits_of(ensemble, graph, 30) == waits_of(ensemble, graph, 10**6)


def test_what_the_host_waits_for():
    # Edges inside the cutoff; number of blocks; their sizes.
    plain = Counter(nonzero=1, bincount=1, _to_copy=1)
    names = ("ethanol", "slab", "atom")
    graph = graph_of(*(structures()[name] for name in names), dense_crystal())
    assert waits_of("none", graph, 30) == plain
    # And the frames: pieces, neighbours, how many of them are near, two levels with two checks
    # each, whether any atom lacks a plane, six selections.
    expected = plain + Counter(_to_copy=1, _local_scalar_dense=7, nonzero=6)
    assert waits_of("closest_pairs", graph, 30).total() <= expected.total()


def test_mixed_places_are_noticed():
    with PretendedDevice(), pytest.raises(RuntimeError, match="from the CPU too"):
        torch.ones(3, device=DEVICE) + torch.ones(3)
