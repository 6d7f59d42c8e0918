"""Coarser precisions round what they say, and nothing else."""

import pytest
import torch
from model_tools import (
    ENSEMBLES,
    FEATURIZERS,
    assert_same,
    graph_of,
    make_potential,
    structures,
)
from test_inference_evaluator import VARIANTS, evaluate

from pet_mlip.bench.tf32 import ImitatedTF32, round_to_tf32
from pet_mlip.inference.evaluator import Evaluator
from pet_mlip.inference.functions import add_exact_product
from pet_mlip.inference.linear import Linear, Product
from pet_mlip.engine.precision import dtype_of, layers_of, matrix_products, set_precision

MODELS = [(e, f, {}) for e in ENSEMBLES for f in FEATURIZERS]
MODELS += [("axis_plane", "feedforward", variant) for variant in VARIANTS]
IDS = ["-".join([e, f, *map(str, v.values())]) for e, f, v in MODELS]


@pytest.fixture
def graph():
    return graph_of(*(structures()[name] for name in ("ethanol", "skewed", "slab", "atom")))


def energies_and_gradient(potential, graph, precision, chunk_size=0):
    """Of all atoms together."""
    weights = torch.ones(len(graph.species), dtype=torch.float64)
    return evaluate(potential, graph, weights, True, chunk_size, precision)[:2]


def error(found, expected):
    """Root mean square difference, relative to what is expected."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("ensemble", "featurizer", "variant"), MODELS, ids=IDS)
def test_errors_are_those_of_the_precision(graph, ensemble, featurizer, variant):
    potential = make_potential(ensemble, featurizer, **variant)
    _, exact = energies_and_gradient(potential, graph, "float64")
    _, single = energies_and_gradient(potential, graph, "float32")
    with ImitatedTF32():
        _, tf32 = energies_and_gradient(potential, graph, "tf32")
    _, mixed = energies_and_gradient(potential, graph, "bf16-mixed")
    assert error(single, exact) < 1e-5
    assert 1e-4 < error(tf32, exact) < 6e-3
    assert error(tf32, exact) < error(mixed, exact) < 6e-2


@pytest.mark.parametrize("precision", ["tf32", "bf16-mixed"])
@pytest.mark.parametrize("featurizer", FEATURIZERS)
def test_activations_that_are_evaluated_again_are_the_same(graph, featurizer, precision):
    potential = make_potential("axis_plane", featurizer, num_attention_layers=2)
    energies, gradient = energies_and_gradient(potential, graph, precision, chunk_size=10**6)
    again, same_gradient = energies_and_gradient(potential, graph, precision, chunk_size=60)
    # Atoms are in blocks of other sizes, and summed in another order before they are rounded.
    assert_same(again, energies, 1e-2 * float(gradient.abs().max()))
    assert error(same_gradient, gradient) < 3e-2


def test_what_is_rounded():
    network = Evaluator(make_potential()).network
    set_precision(network, "bf16-mixed")
    for part in (network.layers, network.exchanges):
        maps = [x for x in part.modules() if isinstance(x, Linear | Product)]
        assert maps and all(x.weight.dtype == torch.bfloat16 for x in maps)
    others = [*network.readouts.buffers(), *network.node_embedders.parameters()]
    for layer in layers_of(network):
        assert layer.rounding
        others += [layer.of_species, layer.of_radial, layer.of_coordinates]
    assert all(x.dtype == torch.float32 for x in others)
    set_precision(network, "float64")
    assert all(x.dtype == torch.float64 for x in [*network.buffers(), *network.parameters()])


def test_features_are_not_kept_in_less_than_float32():
    assert dtype_of("float64") == torch.float64
    assert {dtype_of(x) for x in ("float32", "tf32", "bf16-mixed")} == {torch.float32}


def test_coordinates_are_not_rounded():
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(50, 4, generator=draw), torch.randn(4, 8, generator=draw)
    out = torch.randn(50, 8, generator=draw)
    exact = out.double() + x.double() @ weight.double()
    with ImitatedTF32():
        rounded = torch.addmm(out, x, weight)
        found = add_exact_product(out.clone(), x, weight)
    assert (rounded - exact).abs().max() > 1e-4
    assert (found - exact).abs().max() < 2e-6


def test_numbers_of_tf32():
    step = 2.0**-10
    given = torch.tensor([1.0, 1 + 0.4 * step, 1 + 0.5 * step, -1 - 0.6 * step, 3e-30])
    expected = torch.tensor([1.0, 1.0, 1 + step, -1 - step])
    assert torch.equal(round_to_tf32(given)[:4], expected)
    assert abs(float(round_to_tf32(given)[4]) / 3e-30 - 1) < step


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_products_are_those_of_the_precision_whatever_torch_is_set_to(before, precision):
    wanted = "high" if precision == "tf32" else "highest"
    usual = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(before)
        with pytest.raises(KeyError), matrix_products(precision):
            assert torch.get_float32_matmul_precision() == wanted
            raise KeyError
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(usual)
