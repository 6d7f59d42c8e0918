"""The training modes of a symmetrized module, and what it says about a wrong backbone."""

from typing import NamedTuple

import ase.build
import pytest
import torch
from ecse_tools import CUTOFF, random_vectors
from symmetrized_tools import RANKS, RandomNet, graph_of
from torch import Tensor, nn

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse import SymmetrizationHypers, Symmetrized
from pet_mlip.ecse.training import random_rotations
from pet_mlip.errors import UserError

HYPERS = {
    "closest_pairs": SymmetrizationHypers(ensemble="closest_pairs"),
    "none": SymmetrizationHypers(ensemble="none", train="structure"),
}
BATCH = batch_from_atoms([ase.build.molecule(name) for name in ("CH3OH", "CO2")], CUTOFF)


def model_for(train: str, ensemble: str = "closest_pairs") -> Symmetrized:
    return Symmetrized(RandomNet(), CUTOFF, RANKS, symmetrization=HYPERS[ensemble], train=train)


def test_full_is_the_same_in_training_and_evaluation():
    model = model_for("full")
    trained = model(BATCH.graph)
    for name, values in model.eval()(BATCH.graph).items():
        assert torch.equal(values, trained[name])


def test_the_mean_over_sampled_frames_is_the_average():
    model = model_for("sample")
    graph = graph_of([random_vectors("random", 5, 1)])
    n_draws = 3000
    many = graph_of([random_vectors("random", 5, 1)] * n_draws)
    sampled = {name: values[:n_draws] for name, values in model(many).items()}
    exact = model.eval()(graph)
    for name, values in sampled.items():
        error = values.std(dim=0) / n_draws**0.5
        assert (error > 1e-4).any()
        assert ((values.mean(dim=0) - exact[name][0]).abs() < 5 * error + 1e-12).all()


def test_every_mode_evaluates_the_full_ensemble_in_eval():
    expected = model_for("full").eval()(BATCH.graph)
    for mode in ("sample", "environment"):
        found = model_for(mode).eval()(BATCH.graph)
        assert all(torch.equal(found[name], expected[name]) for name in RANKS)


@pytest.mark.parametrize("mode", ["sample", "environment", "structure"])
def test_keys_decide_on_the_frames(mode):
    model = model_for(mode, "none" if mode == "structure" else "closest_pairs")
    first, again, other = (
        model(BATCH.graph, BATCH.structure, torch.tensor(keys))["dipole"]
        for keys in ([1, 2], [1, 2], [1, 3])
    )
    molecule = BATCH.structure == 0
    assert torch.equal(first, again)
    assert torch.equal(first[molecule], other[molecule])
    # In CO2 every frame of the ensemble gives the oxygen atoms the same dipole.
    if mode != "sample":
        assert not torch.allclose(first[~molecule], other[~molecule])


def test_random_frames_follow_the_global_generator():
    model = model_for("environment")
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(model(BATCH.graph, BATCH.structure)["energy"])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


def test_a_covariant_backbone_passes_through_random_rotations():
    """Random O(3) frames are turned back: targets need no rotation, mirrors no sign."""

    class Covariant(nn.Module):
        def forward(self, vectors, distance, switch, species, centre):
            weighted = vectors * switch.unsqueeze(2)
            return {
                "dipole": weighted.sum(dim=1),
                "polarizability": weighted.transpose(1, 2) @ vectors,
            }

    ranks = {"dipole": 1, "polarizability": 2}
    model = Symmetrized(
        Covariant(), CUTOFF, ranks, symmetrization=HYPERS["none"], train="structure"
    )
    turned = model(BATCH.graph, BATCH.structure)
    for name, values in model.eval()(BATCH.graph).items():
        torch.testing.assert_close(turned[name], values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["full", "sample"])
def test_parameters_and_positions_have_gradients(mode):
    model = model_for(mode)
    vectors = BATCH.graph.edge_vectors.clone().requires_grad_(True)
    energy = model(BATCH.graph._replace(edge_vectors=vectors), BATCH.structure)["energy"].sum()
    (gradient,) = torch.autograd.grad(energy, vectors, create_graph=True)
    gradient.square().sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0).any()


class Returns(nn.Module):
    """A backbone that returns what a function of the number of rows gives."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, vectors, distance, switch, species, centre):
        return self.function(len(centre))


class Named(NamedTuple):
    charge: Tensor
    dipole: Tensor


def test_one_tensor_a_mapping_or_a_named_tuple():
    single = Symmetrized(Returns(lambda n: torch.ones(n)), CUTOFF, {"charge": 0})(BATCH.graph)
    torch.testing.assert_close(single["charge"], torch.ones(9, dtype=torch.float64))
    both = Symmetrized(
        Returns(lambda n: Named(torch.ones(n), torch.ones(n, 4, 3))),
        CUTOFF,
        {"charge": 0, "dipole": 1},
    )(BATCH.graph)
    assert both["dipole"].shape == (9, 4, 3)


@pytest.mark.parametrize(
    ("outputs", "function", "sentence"),
    [
        ({"a": 0, "b": 1}, lambda n: torch.ones(n), "one tensor for the outputs a, b"),
        ({"a": 0}, lambda n: {"b": torch.ones(n)}, "returned b, but the declared outputs are a"),
        ({"a": 0}, lambda n: None, "returned NoneType, but"),
        ({"a": 1}, lambda n: torch.ones(n), "rank 1 has shape"),
        ({"a": 2}, lambda n: torch.ones(n, 3), "rank 2 has shape"),
        ({"a": 1}, lambda n: torch.ones(n, 2), "rank 1 has shape"),
        ({"a": 0}, lambda n: torch.ones(2 * n), "rank 0 has shape"),
    ],
)
def test_wrong_outputs_are_refused(outputs, function, sentence):
    with pytest.raises(UserError, match=sentence):
        Symmetrized(Returns(function), CUTOFF, outputs)(BATCH.graph)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"outputs": {"a": 3}}, "a has rank 3"),
        ({"outputs": {}}, "outputs is empty"),
        ({"cutoff": -1.0}, "cutoff -1.0"),
        ({"cutoff_width": 9.0}, "cutoff_width 9.0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        Symmetrized(RandomNet(), **{"cutoff": CUTOFF, "outputs": RANKS, **arguments})


def test_random_rotations_reflect_too():
    """What makes `structure` and `environment` train on mirror images."""
    signs = torch.linalg.det(random_rotations(torch.arange(20))).sign()
    assert set(signs.tolist()) == {-1.0, 1.0}
