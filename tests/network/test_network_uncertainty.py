"""Last features, and the derivatives of members, against the energy that is made of them."""

import pytest
import torch
from model_tools import (
    ENSEMBLES,
    FEATURIZERS,
    assert_same,
    edges_of,
    graph_of,
    lists_of,
    make_potential,
    structures,
)
from uncertainty_tools import last_weights, never, with_uncertainty, zero_mean

from pet_mlip.export.module import ExportedModel
from pet_mlip.export.selfcheck import random_cluster
from pet_mlip.network.uncertainty import Posterior, growth, offsets, shrink


def without_biases(potential):
    """The last layers', with which the cutoff functions of neighbours are multiplied."""
    for readout in potential.pet.readouts:
        readout.node_head.last.bias.zero_()
        readout.edge_head.last.bias.zero_()
    return potential


@pytest.fixture(params=[(e, f) for e in ENSEMBLES for f in FEATURIZERS], ids="-".join)
def potential(request):
    """Atomic energies are the last features times the last weights, and nothing else."""
    potential = without_biases(make_potential(*request.param, num_gnn_layers=2))
    potential.set_baseline(dict.fromkeys(potential.species, 0.0), 0.7)
    weights = last_weights(potential)
    unit = torch.eye(len(weights), dtype=torch.float64)
    members = torch.stack([weights, -2.0 * weights])
    potential.uncertainty.set(Posterior(unit, members, zero_mean(potential), never(potential)))
    return potential


@pytest.mark.parametrize("chunk_size", [0, 20])
@pytest.mark.parametrize("name", structures())
def test_members_are_differentiated_as_the_energy_is(potential, name, chunk_size):
    graph = graph_of(structures()[name])
    found = ExportedModel(potential)(**edges_of(graph), chunk_size=chunk_size, uncertainty=2)
    energies, gradient, _, _, vectors, deviations = found
    assert_same(vectors @ last_weights(potential), energies, 1e-11)
    bound = 1e-11 * max(1.0, *gradient.abs().flatten().tolist(), 0.0)
    assert_same(deviations[0], gradient, bound)
    assert_same(deviations[1], -2.0 * gradient, 2 * bound)


@pytest.mark.parametrize("chunk_size", [0, 20])
def test_atoms_far_from_the_data_count_more(chunk_size):
    """The deviations are the gradients of sum_i g_i m^T f_i with constant factors g_i."""
    potential = with_uncertainty(make_potential(num_gnn_layers=2), members=2)
    graph = graph_of(structures()["ethanol"])
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    last = potential.record(graph._replace(edge_vectors=vectors), None, True).last
    species = potential.preparation.species_index[graph.species]
    posterior = potential.uncertainty.posterior(True)
    offset = offsets(posterior, last.detach(), species)
    factor = growth(posterior.typical, offset, species)
    squares = offset.square().sum(dim=1) / posterior.typical[species]
    assert squares.max() > 1.5 * squares.min() > 0
    assert_same(factor[:, 0] ** 2, 1.0 + squares, 1e-12)
    found = ExportedModel(potential)(**edges_of(graph), chunk_size=chunk_size, uncertainty=2)
    *_, of_atoms, deviations = found
    assert_same(of_atoms, factor * offset, 1e-11)
    for typical in (posterior.typical, never(potential)):
        grown = growth(typical, offset, species) * offset
        assert_same(shrink(typical, grown, species), offset, 1e-12)
    for member, deviation in zip(posterior.members, deviations, strict=True):
        (expected,) = torch.autograd.grad(
            (factor * (last @ member)[:, None]).sum(), vectors, retain_graph=True
        )
        assert_same(deviation, expected, 1e-11 * max(1.0, float(expected.abs().max())))


def test_members_have_no_repulsion():
    """It is the same whatever the network says."""
    squeezed = structures()["water"]
    squeezed.positions *= 0.6
    graph = graph_of(squeezed)
    potential = without_biases(make_potential(zbl=True))
    weights = last_weights(potential)
    unit = torch.eye(len(weights))
    potential.uncertainty.set(
        Posterior(unit, weights[None], zero_mean(potential), never(potential))
    )
    _, gradient, _, _, _, deviations = ExportedModel(potential)(**edges_of(graph), uncertainty=2)
    _, without, *_ = ExportedModel(without_biases(make_potential()))(**edges_of(graph))
    assert_same(deviations[0], without, 1e-11)
    assert (gradient - without).abs().max() > 1e-2


def test_domains_are_driven_with_them(potential):
    positions, graph = random_cluster(potential.species, potential.cutoff)
    model = ExportedModel(potential)
    moving = (positions, graph.edge_index[1], *lists_of(graph))
    energies, forces, *_, vectors, deviations = model.drive(*moving, uncertainty=2)
    assert_same(vectors @ last_weights(potential), energies, 1e-11)
    assert_same(deviations[0], forces, 1e-10)
    *_, vectors, deviations = model.drive(*moving, uncertainty=1)
    assert len(vectors) == len(energies) and len(deviations) == 0
    *_, vectors, deviations = model.drive(*moving)
    assert len(vectors) == len(deviations) == 0


def test_what_is_not_known_is_refused():
    with pytest.raises(RuntimeError, match="does not know its uncertainty"):
        ExportedModel(make_potential())(**edges_of(graph_of(structures()["water"])), uncertainty=1)
