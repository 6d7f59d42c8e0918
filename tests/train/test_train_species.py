"""Weights in a potential that knows fewer or more elements."""

from __future__ import annotations

import pytest
import torch
from ase.build import molecule
from train_tools import TINY

from pet_mlip.config import validate
from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.train.species import choose_species, transfer_weights


@pytest.fixture(params=["residual", "feedforward"])
def hypers(request: pytest.FixtureRequest) -> PETHypers:
    return PETHypers(**{**TINY, "num_gnn_layers": 2, "featurizer_type": request.param})


def make_potential(species: list[int], hypers: PETHypers, seed: int) -> Potential:
    torch.manual_seed(seed)
    potential = Potential(species, hypers, SymmetrizationHypers()).set_dtype(torch.float64)
    potential.set_baseline({z: -float(z) for z in species}, 2.5)
    return potential


@pytest.mark.parametrize("species", [[1, 8], [1, 6, 8], [1, 3, 7, 8, 29]])
def test_predictions_do_not_depend_on_other_elements(hypers: PETHypers, species: list[int]) -> None:
    source = make_potential([1, 6, 8, 13], hypers, 0)
    target = make_potential(species, hypers, 1)
    transfer_weights(source, target)
    graph = batch_from_atoms([molecule("H2O")], hypers.cutoff).graph
    torch.testing.assert_close(target(graph), source(graph), rtol=0, atol=1e-13)


def test_new_elements_start_from_the_mean(hypers: PETHypers) -> None:
    source = make_potential([1, 6, 8], hypers, 0)
    target = make_potential([1, 7], hypers, 1)
    transfer_weights(source, target)
    for old, new in [
        (source.pet.edge_embedder, target.pet.edge_embedder),
        (source.pet.node_embedders[0], target.pet.node_embedders[0]),
        (source.pet.layers[1].neighbor_embedder, target.pet.layers[1].neighbor_embedder),
    ]:
        assert torch.equal(new.weight[0], old.weight[0])
        torch.testing.assert_close(new.weight[1], old.weight.mean(dim=0))
    assert target.composition.tolist() == [-1.0, 0.0]
    assert float(target.scale) == 2.5


@pytest.mark.parametrize(
    ("options", "wanted", "expected"),
    [
        ({}, [1, 8], [1, 6, 8]),
        ({"drop_species": True}, [1, 8], [1, 8]),
        ({"add_species": True}, [1, 7], [1, 6, 7, 8]),
        ({"add_species": True, "drop_species": True}, [1, 7], [1, 7]),
    ],
)
def test_the_choice(options: dict[str, bool], wanted: list[int], expected: list[int]) -> None:
    tree = {"data": {"train": "a"}, "training": {"epochs": 1, "init_from": "x.ckpt", **options}}
    assert choose_species([1, 6, 8], wanted, validate(tree, "test")) == expected


def test_refusals() -> None:
    tree = {"data": {"train": "a"}, "training": {"epochs": 1, "init_from": "x.ckpt"}}
    with pytest.raises(UserError, match=r"x.ckpt .* does not know N, Al of .*add_species: true"):
        choose_species([1, 6, 8], [1, 7, 13], validate(tree, "test"))
    tree["training"] |= {"add_species": True, "freeze": ["backbone"]}
    with pytest.raises(UserError, match=r"those of N \(add_species\) are new"):
        choose_species([1, 6, 8], [1, 7], validate(tree, "test"))
