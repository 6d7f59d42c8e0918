"""What the compiler makes of the parts is what they are."""

import shutil

import numpy as np
import pytest
import torch
from ase.build import bulk
from model_tools import graph_of, make_potential, structures

from pet_mlip import PETCalculator
from pet_mlip.compile import compile_model
from pet_mlip.compile.functions import Method, compile_part, sample_inputs
from pet_mlip.export import save_model
from pet_mlip.inference.evaluator import Evaluator
from pet_mlip.model.derivatives import predict

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")


@pytest.mark.slow
def test_one_part(tmp_path):
    part = Evaluator(make_potential("none")).network.readouts[0].edge_head
    (tmp_path / "work").mkdir()
    found = compile_part(part, "head", tmp_path / "work", lambda _: None)
    for k, name in enumerate(("forward", "vjp")):
        path = tmp_path / f"{name}.pt2"
        path.write_bytes(found[f"head_{name}"])
        loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
        for size in ((1, 2), (7, 1), (33, 30), (50, 61)):
            *samples, n_plain = sample_inputs(part, size)
            tensors = [*samples[k], *part.state_dict().values()]
            expected = Method(part, name, n_plain if name == "vjp" else None)(*tensors)
            for a, b in zip(loader.run(tensors), expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@pytest.fixture(
    scope="module", params=[("axis_plane", "float64"), ("none", "float32")], ids="-".join
)
def files(request, tmp_path_factory):
    """A potential, its exported file, that compiled, and bounds of energies and forces."""
    ensemble, dtype = request.param
    folder = tmp_path_factory.mktemp("compiled")
    potential = make_potential(ensemble)
    save_model(folder / "model.pt", potential, dtype=dtype)
    steps = []
    compile_model(
        folder / "model.pt", folder / "model.pt2", progress=lambda *step: steps.append(step)
    )
    assert steps[-1][:2] == (steps[0][1], steps[0][1])
    bounds = (1e-10, 1e-10) if dtype == "float64" else (1e-6, 1e-5)
    return potential, folder / "model.pt", folder / "model.pt2", bounds


@pytest.mark.slow
def test_same_as_torchscript_and_eager(files):
    potential, model, compiled, bounds = files
    calculators = [PETCalculator(f, chunk_size=c) for f in (model, compiled) for c in (0, 50)]
    for atoms in [*structures().values(), bulk("Si", cubic=True) * 2]:
        structure = torch.zeros(len(atoms), dtype=torch.int64)
        expected = predict(potential, graph_of(atoms), structure, 1)
        scale = max(1.0, float(expected.forces.abs().max()))
        for calculator in calculators:
            found = calculator.compute_batch([atoms])[0]
            error = abs(found["energy"] - float(expected.energy))
            assert error <= bounds[0] * len(atoms)
            np.testing.assert_allclose(
                found["forces"], expected.forces.numpy(), rtol=0, atol=bounds[1] * scale
            )


@pytest.mark.slow
def test_any_number_of_threads(files):
    _, model, compiled, bounds = files
    atoms = bulk("Si", cubic=True) * 2
    atoms.rattle(0.1)
    expected = PETCalculator(model).compute_batch([atoms])[0]["forces"]
    calculator = PETCalculator(compiled)
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            found = calculator.compute_batch([atoms])[0]["forces"]
            np.testing.assert_allclose(found, expected, rtol=0, atol=bounds[1])
    finally:
        torch.set_num_threads(before)
