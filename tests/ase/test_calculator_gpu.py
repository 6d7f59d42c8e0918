"""On a GPU the calculator says what it says on the CPU."""

import pickle

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from pet_mlip import PETCalculator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def structures():
    found = [molecule("CH3CH2OH"), molecule("CO2"), bulk("Si", cubic=True)]
    for k, atoms in enumerate(found):
        atoms.rattle(0.05, seed=k)
    return found


@pytest.mark.parametrize("chunk_size", [0, 100])
def test_gpu_agrees_with_cpu(model_file, structures, chunk_size):
    properties = ("energy", "forces", "stress")
    on_cpu = PETCalculator(model_file, device="cpu").compute_batch(structures, properties)
    gpu = PETCalculator(model_file, device="cuda", chunk_size=chunk_size)
    for a, b in zip(on_cpu, gpu.compute_batch(structures, properties), strict=True):
        assert a["energy"] == pytest.approx(b["energy"], abs=1e-10)
        assert np.allclose(a["forces"], b["forces"], rtol=0, atol=1e-9)
        if "stress" in a:
            assert np.allclose(a["stress"], b["stress"], rtol=0, atol=1e-9)


def test_auto_is_the_gpu_and_pickles_return_to_it(model_file):
    calculator = PETCalculator(model_file)
    assert calculator.engine.model.device.type == "cuda"
    again = pickle.loads(pickle.dumps(calculator))
    assert again.engine.model.device.type == "cuda"
