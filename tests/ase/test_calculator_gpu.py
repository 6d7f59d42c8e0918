"""On a GPU the calculator says what it says on the CPU."""

import pickle

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from model_tools import assert_same_graph

from benchmarks.peers.structures import water
from pet_mlip import PETCalculator
from pet_mlip.ase.neighbours import SkinNeighbours, find_graph
from pet_mlip.graph.graph import map_tensors

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


def test_the_kept_list_stays_on_the_gpu():
    atoms = bulk("Si", cubic=True)
    neighbours = SkinNeighbours(4.0, 0.5, torch.device("cuda"))
    first = neighbours(atoms)
    atoms.rattle(0.02)
    second = neighbours(atoms)
    assert all(tensor.device.type == "cuda" for tensor in second[:-1])
    assert second.edge_index is first.edge_index and second.reverse is first.reverse
    expected = SkinNeighbours(4.0, 0.5, torch.device("cpu"))
    expected(bulk("Si", cubic=True))
    assert_same_graph(map_tensors(second, torch.Tensor.cpu), expected(atoms))


@pytest.mark.parametrize(
    "pbc", [(1, 1, 1), (1, 1, 0), (0, 1, 0), (0, 0, 0)], ids=["bulk", "slab", "wire", "cluster"]
)
@pytest.mark.parametrize("skew", [0.0, 3.0])
def test_vesin_finds_on_the_gpu_what_matscipy_finds(pbc, skew, recwarn):
    pytest.importorskip("vesin_torch")
    atoms = water(216)
    atoms.pbc = pbc
    cell = atoms.cell.array
    cell[1] += skew * cell[0]
    cell[2] -= skew * cell[1]
    rng = np.random.default_rng(0)
    atoms.positions += rng.integers(-3, 3, (len(atoms), 3)) * pbc @ cell
    by_matscipy, by_vesin = (find_graph(atoms, 5.5, torch.device(on)) for on in ("cpu", "cuda"))
    assert_same_graph(map_tensors(by_vesin, torch.Tensor.cpu), by_matscipy)
    assert not recwarn.list
