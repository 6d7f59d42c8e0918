"""The potential itself: nothing at all, baselines, dtypes, configuration."""

import json

import pytest
import torch
from model_tools import (
    CUTOFF,
    ENSEMBLES,
    FEATURIZERS,
    SPECIES,
    assert_same,
    empty_graph,
    graph_of,
    make_potential,
    predict_atoms,
    structures,
)
from pydantic import ValidationError

from pet_mlip.engine.derivatives import predict
from pet_mlip.engine.potential import Potential
from pet_mlip.graph.hypers import PETHypers


@pytest.fixture(params=ENSEMBLES)
def ensemble(request):
    return request.param


@pytest.mark.parametrize("featurizer", FEATURIZERS)
def test_without_atoms(ensemble, featurizer):
    found = predict(
        make_potential(ensemble, featurizer), empty_graph([]), torch.zeros(0, dtype=torch.int64), 2
    )
    assert found.energy.tolist() == [0, 0]
    assert found.atomic_energies.shape == (0,)
    assert found.forces.shape == (0, 3)
    assert not found.virial.any()


@pytest.mark.parametrize("featurizer", FEATURIZERS)
def test_without_edges(ensemble, featurizer):
    potential = make_potential(ensemble, featurizer)
    found = predict(potential, empty_graph([8, 1, 8]), torch.zeros(3, dtype=torch.int64), 1)
    assert found.atomic_energies.isfinite().all()
    assert found.atomic_energies[0] == found.atomic_energies[2] != found.atomic_energies[1]
    assert not found.forces.any()
    assert not found.virial.any()


@pytest.mark.parametrize("featurizer", FEATURIZERS)
def test_an_atom_without_neighbours_among_others(ensemble, featurizer):
    potential = make_potential(ensemble, featurizer)
    alone = predict_atoms(potential, structures()["atom"])
    among = predict_atoms(potential, structures()["silicon"], structures()["atom"])
    assert_same(among.atomic_energies[-1:], alone.atomic_energies, 1e-13)
    assert not among.forces[-1].any()


def test_an_atom_leaving_becomes_an_isolated_one(ensemble):
    potential = make_potential(ensemble, cutoff_function="Bump")
    dimer = structures()["dimer"]
    dimer.set_distance(0, 1, CUTOFF - 1e-9)
    isolated = potential(empty_graph(dimer.numbers.tolist()))
    assert_same(potential(graph_of(dimer)), isolated, 1e-12)


def test_the_baseline_is_added_in_float64(ensemble):
    atoms = structures()["ethanol"]
    composition = {z: -50_000.123456789 * z / 8 for z in SPECIES}
    baseline = torch.tensor([composition[int(z)] for z in atoms.numbers], dtype=torch.float64)
    potential = make_potential(ensemble).set_dtype(torch.float32)
    potential.set_baseline({z: 0.0 for z in SPECIES}, 0.7)
    small = predict_atoms(potential, atoms)
    potential.set_baseline(composition, 0.7)
    large = predict_atoms(potential, atoms)
    assert_same(large.atomic_energies - baseline, small.atomic_energies, 3e-11)
    assert_same(large.forces, small.forces, 0.0)


def test_the_scale_multiplies_the_network(ensemble):
    potential = make_potential(ensemble)
    potential.set_baseline({z: 0.0 for z in SPECIES}, 1.0)
    one = predict_atoms(potential, structures()["skewed"])
    potential.set_baseline({z: 0.0 for z in SPECIES}, 2.5)
    more = predict_atoms(potential, structures()["skewed"])
    assert_same(more.atomic_energies, 2.5 * one.atomic_energies)
    assert_same(more.forces, 2.5 * one.forces)


def test_only_the_network_is_cast(ensemble):
    potential = make_potential(ensemble)
    exact = predict_atoms(potential, structures()["ethanol"])
    assert potential.set_dtype(torch.float32) is potential
    assert {p.dtype for p in potential.parameters()} == {torch.float32}
    assert potential.composition.dtype == potential.scale.dtype == torch.float64
    rounded = predict_atoms(potential, structures()["ethanol"])
    for found, expected in zip(rounded[:4], exact[:4], strict=True):
        assert found.dtype == torch.float64
        assert_same(found, expected, 2e-4)
    assert not torch.equal(rounded.forces, exact.forces)


def test_other_atomic_numbers_in_between(ensemble):
    potential = make_potential(ensemble)
    assert potential.species == SPECIES
    assert potential.preparation.species_index[torch.tensor(SPECIES)].tolist() == [0, 1, 2, 3]
    assert int((potential.preparation.species_index >= 0).sum()) == len(SPECIES)


@pytest.mark.parametrize("featurizer", FEATURIZERS)
def test_configuration_and_weights_make_the_same_potential(ensemble, featurizer):
    potential = make_potential(ensemble, featurizer)
    config = json.loads(json.dumps(potential.config()))
    again = Potential.from_config(config).set_dtype(torch.float64)
    again.load_state_dict(potential.state_dict())
    graph = graph_of(structures()["skewed"])
    assert_same(again(graph), potential(graph))
    assert again.config() == potential.config()


def test_frames_of_each_atom():
    graph = graph_of(*structures().values())
    assert (make_potential("none").count_frames(graph) == 1).all()
    counts = make_potential("closest_pairs").count_frames(graph)
    assert (counts >= 1).all()
    assert counts[-3:].tolist() == [1, 1, 1]


def test_every_parameter_in_use_has_a_gradient(ensemble):
    for featurizer in FEATURIZERS:
        potential = make_potential(ensemble, featurizer, num_gnn_layers=2)
        for parameter in potential.parameters():
            parameter.requires_grad_(True)
        potential(graph_of(*structures().values())).sum().backward()
        idle = {n for n, p in potential.pet.named_parameters() if p.grad is None}
        # Empty, hence without effect.
        assert idle <= {
            "layers.0.neighbor_embedder.weight",
            *(f"layers.{i}.radial_embedder" for i in range(2)),
        }


@pytest.mark.parametrize(
    ("hypers", "words"),
    [
        ({"d_pet": 10, "num_heads": 4}, "multiple of num_heads"),
        ({"cutoff": 3.0, "cutoff_width": 3.5}, "must not exceed cutoff"),
        ({"cutoff": -1.0}, "greater than 0"),
        ({"normalization": "BatchNorm"}, "RMSNorm"),
        ({"n_layers": 2}, "n_layers"),
    ],
)
def test_impossible_hyperparameters(hypers, words):
    with pytest.raises(ValidationError, match=words):
        PETHypers(**hypers)


def test_the_cutoff_switch_is_wide_by_default():
    assert PETHypers().switch_width == pytest.approx(3.5)
    assert PETHypers(cutoff=3.0).switch_width == pytest.approx(2.1)
    assert PETHypers(cutoff=3.0, cutoff_width=0.4).switch_width == 0.4
    assert PETHypers(num_neighbors_adaptive=20.0).switch_width == 0.5
    again = PETHypers(**PETHypers(cutoff=4.0).model_dump())
    assert again.switch_width == pytest.approx(2.8)


def test_a_wide_cutoff_function_leaves_the_frames_alone():
    """It weakens near neighbours, which make frames all the same."""
    graph = graph_of(structures()["ethanol"])
    wide, narrow = (make_potential(cutoff_width=width).layer_frames(graph) for width in (2.5, 1.0))
    for a, b in zip(wide, narrow, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
