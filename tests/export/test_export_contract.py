"""What the exported file computes, wherever and however it is called."""

import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from model_files import CUTOFF
from model_tools import assert_same_graph, empty_graph, shifts_of

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.engine.derivatives import forces_from_edge_gradient
from pet_mlip.errors import UserError
from pet_mlip.export import load_model, save_model
from pet_mlip.export.selfcheck import random_cluster
from pet_mlip.graph.graph import map_tensors


@pytest.fixture(scope="module")
def atoms():
    crystal = bulk("Si")
    crystal.rattle(0.05, seed=1)
    return [molecule("CH3OH"), crystal, Atoms("O"), molecule("CO2")]


@pytest.fixture(scope="module")
def graph(atoms):
    return batch_from_atoms(atoms, CUTOFF + 0.2).graph


@pytest.fixture(scope="module")
def order(graph):
    return torch.randperm(len(graph.reverse), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def edges(atoms, graph, order):
    """As whoever keeps no list gives them: in any order, without their reverse edges."""
    shifts = torch.cat([shifts_of(each, CUTOFF + 0.2) for each in atoms])
    index, vectors = graph.edge_index[:, order], graph.edge_vectors[order]
    return graph.species, index, vectors, shifts[order], graph.electronic


@pytest.fixture(scope="module")
def weights(graph):
    return torch.linspace(-1, 2, len(graph.species), dtype=torch.float64)


def eager(potential, graph, weights=None):
    """Energies and gradient by the potential that was exported."""
    potential = deepcopy(potential).set_dtype(torch.float64)
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    energies = potential(graph._replace(edge_vectors=vectors))
    total = energies.sum() if weights is None else (energies * weights).sum()
    return energies.detach(), torch.autograd.grad(total, vectors)[0]


def assert_results(found, energies, gradient, bound=1e-12):
    assert found[0].dtype == found[1].dtype == torch.float64
    assert not any(value.requires_grad for value in found[:3])
    torch.testing.assert_close(found[0], energies, rtol=0, atol=bound)
    torch.testing.assert_close(found[1], gradient, rtol=0, atol=bound)


@pytest.mark.parametrize("chunk_size", [0, 1, 50, 10**6])
def test_energies_gradient_frames(model, potential, graph, weights, chunk_size):
    found = model(graph, weights, True, chunk_size)
    assert_results(found, *eager(potential, graph, weights))
    assert torch.equal(found[2], potential.count_frames(graph))


def test_weights_are_ones_by_default(model, potential, graph):
    assert_results(model(graph), *eager(potential, graph))


@pytest.mark.parametrize("chunk_size", [0, 50])
def test_edges_in_any_order_without_their_reverse(model, graph, edges, order, chunk_size):
    with torch.enable_grad():
        found = model.module(*edges, chunk_size=chunk_size)
    energies, gradient, *_ = model(graph)
    assert_results(found, energies, gradient[order])


@pytest.mark.parametrize("chunk_size", [0, 50])
def test_without_gradient(model, potential, graph, chunk_size):
    energies, _ = eager(potential, graph)
    found = model(graph, None, False, chunk_size)
    assert_results(found, energies, torch.zeros_like(graph.edge_vectors))


@pytest.mark.parametrize("chunk_size", [0, 1])
def test_the_bare_module_refuses_a_gradient_that_autograd_cannot_give(
    model, graph, edges, chunk_size
):
    with torch.no_grad(), pytest.raises(torch.jit.Error, match="autograd is switched off"):
        model.module(*edges, None, True, chunk_size)
    with torch.no_grad():
        energies, *_ = model.module(*edges, None, False, chunk_size)
    torch.testing.assert_close(energies, model(graph)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [0, 50])
def test_single_precision_vectors_are_evaluated_in_double(model, graph, chunk_size):
    rounded = graph.edge_vectors.float()
    found = model(graph._replace(edge_vectors=rounded), None, True, chunk_size)
    expected = model(graph._replace(edge_vectors=rounded.double()), None, True, chunk_size)
    assert_results(found, *expected[:2])


@pytest.mark.parametrize("chunk_size", [0, 1])
@pytest.mark.parametrize("species", [[], [6], [1, 29]])
def test_without_edges(model, species, chunk_size):
    n = len(species)
    energies, gradient, n_frames, *_ = model(empty_graph(species), chunk_size=chunk_size)
    assert energies.shape == (n,)
    assert energies.isfinite().all()
    assert gradient.shape == (0, 3)
    assert n_frames.tolist() == [1] * n


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("chunk_size", [0, 50])
def test_gradient_modes_of_the_caller(model, graph, mode, chunk_size):
    expected = model(graph)
    with mode():
        copy = map_tensors(graph, torch.clone)
        assert_results(model(copy, chunk_size=chunk_size), *expected[:2])


def test_edges_out_of_order_are_refused(model, graph, order):
    wrong = graph._replace(edge_index=graph.edge_index[:, order])
    with pytest.raises(UserError, match="sort_edges"):
        model(wrong)


def test_loading_in_inference_mode(path, model, graph):
    with torch.inference_mode():
        loaded = load_model(path, device="cpu")
    assert_results(loaded(graph), *model(graph)[:2])


def test_inputs_that_require_grad_stay_apart(model, graph):
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    found = model(graph._replace(edge_vectors=vectors))
    assert_results(found, *model(graph)[:2])
    assert vectors.grad is None
    assert vectors.requires_grad


def test_inputs_are_not_changed(model, graph):
    before = map_tensors(graph, torch.clone)
    model(graph)
    assert_same_graph(graph, before)
    assert not graph.edge_vectors.requires_grad


def global_state():
    return {
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "gradient": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "optimize": torch._C._get_graph_executor_optimize(),
        "profiling": torch._C._jit_set_profiling_mode(torch._C._jit_set_profiling_mode(True)),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "random": torch.get_rng_state().tolist(),
    }


@pytest.mark.parametrize("gradient", [True, False])
def test_nothing_global_changes(potential, graph, tmp_path, gradient):
    with torch.set_grad_enabled(gradient):
        before = global_state()
        save_model(tmp_path / "model.pt", potential, dtype="float64")
        loaded = load_model(tmp_path / "model.pt", device="cpu", dtype="float32")
        assert global_state() == before
        loaded(graph)
        loaded(graph, chunk_size=30)
        assert global_state() == before


def test_nothing_global_changes_when_a_call_fails(model, graph):
    before = global_state()
    with pytest.raises(RuntimeError):
        model(graph._replace(species=torch.full_like(graph.species, 99)))
    assert global_state() == before


def test_saving_leaves_the_potential_as_it_was(potential, tmp_path):
    original = deepcopy(potential).train()
    changed = deepcopy(original)
    save_model(tmp_path / "model.pt", changed, dtype="float64")
    assert changed.training
    for name, value in original.state_dict().items():
        assert changed.state_dict()[name].dtype == value.dtype
        assert torch.equal(changed.state_dict()[name], value)
    flags = [p.requires_grad for p in original.parameters()]
    assert [p.requires_grad for p in changed.parameters()] == flags


def test_dtype_of_file_and_of_loading(potential, path, graph, tmp_path):
    single = tmp_path / "single.pt"
    save_model(single, potential)
    energies, gradient = eager(potential, graph)
    for file, written in ((path, "float64"), (single, "float32")):
        default = load_model(file, device="cpu")
        assert default.metadata.dtype == written
        assert default.dtype == getattr(torch, written)
        # Weights are folded before they are rounded to the dtype of the file.
        exact = 1e-12 if written == "float64" else 1e-6
        for dtype, bound in (("float64", exact), ("float32", 1e-4)):
            loaded = load_model(file, device="cpu", dtype=dtype)
            assert loaded.dtype == getattr(torch, dtype)
            assert_results(loaded(graph), energies, gradient, bound)


@pytest.mark.parametrize("written", ["float64", "float32"])
def test_mixed_precision_of_any_file(potential, tmp_path, written):
    save_model(tmp_path / "model.pt", potential, dtype=written)
    positions, graph = random_cluster(potential.species, potential.cutoff)
    _, gradient = eager(potential, graph)
    model = load_model(tmp_path / "model.pt", device="cpu", dtype="bf16-mixed")
    assert (model.precision, model.dtype) == ("bf16-mixed", torch.float32)
    energies, found, *_ = model(graph)
    assert 1e-4 < float((found - gradient).norm() / gradient.norm()) < 6e-2
    driven, forces, *_ = model.drive(positions, graph.edge_index[1], graph)
    expected = forces_from_edge_gradient(found, graph.edge_index, len(positions))
    torch.testing.assert_close(driven, energies, rtol=0, atol=0)
    torch.testing.assert_close(forces, expected, rtol=0, atol=1e-12)


def test_large_baselines_lose_nothing_in_single_precision(potential, graph, tmp_path):
    heavy = deepcopy(potential)
    composition = {z: -50_000.123456789 - z for z in heavy.species}
    baseline = torch.tensor([composition[int(z)] for z in graph.species], dtype=torch.float64)
    results = []
    for values in (composition, dict.fromkeys(composition, 0.0)):
        heavy.set_baseline(values, 1.0)
        save_model(tmp_path / "model.pt", heavy, dtype="float32")
        results.append(load_model(tmp_path / "model.pt", device="cpu")(graph))
    torch.testing.assert_close(results[0][0] - baseline, results[1][0], rtol=0, atol=3e-11)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=0)


WITHOUT_THE_PACKAGE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pet_mlip", "ase", "pydantic", "matscipy"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import torch
inputs, results = torch.load(sys.argv[2])
model = torch.jit.load(sys.argv[1])
for chunk_size in (0, 40):
    found = model(*inputs, None, True, chunk_size)
    for value, expected in zip(found, results):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
assert not any(name.startswith("pet_mlip") for name in sys.modules)
print("same")
"""


def test_a_process_without_this_package(path, model, edges, tmp_path):
    torch.save((list(edges), list(model.module(*edges))), tmp_path / "results.pt")
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_THE_PACKAGE]
    done = subprocess.run(
        [*command, path, tmp_path / "results.pt"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.stdout.strip() == "same", done.stderr
