"""Coarser precisions round what they say, and nothing else."""

import threading
import time

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
from test_engine_evaluator import VARIANTS, evaluate

from benchmarks.precisions import ImitatedTF32, round_to_tf32
from pet_mlip.engine.precision import (
    MatrixProducts,
    dtype_of,
    matrix_products,
    set_precision,
)
from pet_mlip.network.linear import Linear
from pet_mlip.network.products import add_product

MODELS = [(e, f, {}) for e in ENSEMBLES for f in FEATURIZERS]
MODELS += [("closest_pairs", "feedforward", variant) for variant in VARIANTS]
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
    potential = make_potential("closest_pairs", featurizer, num_attention_layers=2)
    energies, gradient = energies_and_gradient(potential, graph, precision, chunk_size=10**6)
    again, same_gradient = energies_and_gradient(potential, graph, precision, chunk_size=60)
    # Atoms are in blocks of other sizes, and summed in another order before they are rounded.
    assert_same(again, energies, 1e-2 * float(gradient.abs().max()))
    assert error(same_gradient, gradient) < 3e-2


def test_what_is_rounded():
    network = make_potential().pet
    set_precision(network, "bf16-mixed")
    for part in (network.layers, network.exchanges):
        maps = [x for x in part.modules() if isinstance(x, Linear)]
        assert maps and all(x.weight.dtype == torch.bfloat16 for x in maps)
    others = [*network.readouts.parameters(), *network.node_embedders.parameters()]
    for layer in network.layers:
        assert layer.rounding and layer.density.rounding
        others += [layer.compress_in.weight, layer.edge_embedder.weight, layer.radial_embedder]
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
        found = add_product(out.clone(), x, weight, True)
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


class Worker(threading.Thread):
    """Evaluates in one precision until it is told to stop."""

    def __init__(self, products, precision, log=None):
        super().__init__(daemon=True)
        self.products, self.precision, self.log = products, precision, log
        self.inside, self.stop = threading.Event(), threading.Event()
        self.start()

    def run(self):
        with self.products(self.precision):
            self.inside.set()
            if self.log is not None:
                self.log.append(torch.get_float32_matmul_precision())
            self.stop.wait(10)

    def finish(self):
        self.stop.set()
        self.join(10)
        assert not self.is_alive()


def waiting(products, count):
    """Wait until as many threads wait for their turn."""
    deadline = time.monotonic() + 10
    while len(products._queue) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_threads_of_one_precision_evaluate_together_and_others_after_them():
    products = MatrixProducts()
    first, second = Worker(products, "float32"), Worker(products, "float64")
    assert first.inside.wait(10) and second.inside.wait(10)
    other = Worker(products, "tf32")
    waiting(products, 1)
    first.finish()
    assert not other.inside.wait(0.1)
    second.finish()
    assert other.inside.wait(10)
    other.finish()


def test_a_stream_of_one_precision_cannot_starve_another():
    """Who comes later waits behind it, although it might join those that evaluate."""
    products, log = MatrixProducts(), []
    before = torch.get_float32_matmul_precision()
    first = Worker(products, "float32", log)
    assert first.inside.wait(10)
    other = Worker(products, "tf32", log)
    waiting(products, 1)
    later = [Worker(products, "float32", log), Worker(products, "float32", log)]
    waiting(products, 3)
    first.finish()
    assert other.inside.wait(10)
    assert not any(worker.inside.is_set() for worker in later)
    other.finish()
    assert all(worker.inside.wait(10) for worker in later)  # both at once
    for worker in later:
        worker.finish()
    assert log == ["highest", "high", "highest", "highest"]
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("inner", ["float64", "tf32"])
def test_turns_may_be_nested_whoever_waits(inner):
    """Also in several threads, which would wait for each other if they kept their turns."""
    products, errors = MatrixProducts(), []
    together = threading.Barrier(2)

    def nested():
        try:
            with products("float32"):
                together.wait(10)
                with products(inner):
                    expected = "high" if inner == "tf32" else "highest"
                    assert torch.get_float32_matmul_precision() == expected
                    with products("float32"):
                        assert torch.get_float32_matmul_precision() == "highest"
                    assert torch.get_float32_matmul_precision() == expected
                assert torch.get_float32_matmul_precision() == "highest"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=nested, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert not errors
    other = Worker(products, "tf32")
    assert other.inside.wait(10)
    other.finish()


def test_an_inner_turn_of_the_same_precision_does_not_wait_for_those_in_the_queue():
    products, passed = MatrixProducts(), threading.Event()
    inside, going = threading.Event(), threading.Event()

    def nested():
        with products("float32"):
            inside.set()
            going.wait(10)
            with products("float32"):
                passed.set()

    thread = threading.Thread(target=nested, daemon=True)
    thread.start()
    assert inside.wait(10)
    other = Worker(products, "tf32")
    waiting(products, 1)
    going.set()
    assert passed.wait(10)
    thread.join(10)
    other.finish()
