"""Samples, batches and the data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from model_tools import assert_same_graph
from torch.utils.data import DataLoader

from pet_mlip.data.batch import batch_from_atoms, collate
from pet_mlip.data.dataset import AtomsDataset
from pet_mlip.data.labels import structure_from_atoms
from pet_mlip.data.sampler import AtomBudgetBatchSampler, SampleRef

CUTOFF = 4.0


@pytest.fixture
def structures(crystals, molecules):
    isolated = Atoms("He", positions=[[1.0, 2.0, 3.0]])
    return [structure_from_atoms(atoms) for atoms in [*molecules, isolated, *crystals]]


def assert_equal(first, second):
    for name in ("structure", "n_atoms", "volume", "energy", "forces", "stress", "index"):
        left, right = getattr(first, name), getattr(second, name)
        assert left.dtype == right.dtype
        assert torch.equal(torch.nan_to_num(left, -7.0), torch.nan_to_num(right, -7.0)), name
    assert_same_graph(first.graph, second.graph)
    assert first.totals == second.totals


def test_shapes_and_dtypes(structures):
    dataset = AtomsDataset(structures, CUTOFF)
    batch = collate([dataset[i] for i in range(len(dataset))])
    n_atoms = sum(s.n_atoms for s in structures)
    assert batch.n_structures == len(structures)
    assert batch.structure.tolist() == np.repeat(np.arange(12), dataset.sizes).tolist()
    assert batch.n_atoms.tolist() == dataset.sizes.tolist()
    assert batch.forces.shape == (n_atoms, 3)
    assert batch.stress.shape == (12, 3, 3)
    for tensor in (batch.structure, batch.n_atoms, batch.index, batch.graph.species):
        assert tensor.dtype == torch.int64
    assert batch.graph.edge_index.dtype == batch.graph.reverse.dtype == torch.int64
    for tensor in (batch.energy, batch.forces, batch.stress, batch.volume):
        assert tensor.dtype == torch.float64
    assert batch.graph.edge_vectors.dtype == torch.float64


def test_a_batch_is_its_structures_side_by_side(structures):
    dataset = AtomsDataset(structures, CUTOFF)
    graph = collate(dataset.__getitems__(range(len(dataset)))).graph
    offset, edge = 0, 0
    for structure in structures:
        alone = batch_from_atoms([structure.to_atoms()], CUTOFF).graph
        edges = slice(edge, edge + alone.edge_index.shape[1])
        assert torch.equal(graph.species[offset : offset + structure.n_atoms], alone.species)
        assert torch.equal(graph.edge_index[:, edges], alone.edge_index + offset)
        assert torch.equal(graph.edge_vectors[edges], alone.edge_vectors)
        assert torch.equal(graph.reverse[edges], alone.reverse + edge)
        offset, edge = offset + structure.n_atoms, edges.stop
    assert graph.atoms_within == [len(graph.species)]


def test_missing_labels_are_nan(structures):
    dataset = AtomsDataset(structures, CUTOFF)
    batch = collate([dataset[i] for i in range(len(dataset))])
    assert torch.isnan(batch.energy).tolist() == [i == 5 for i in range(12)]
    assert torch.isnan(batch.stress).all(dim=(1, 2)).tolist() == [i < 6 for i in range(12)]
    assert torch.isnan(batch.volume).tolist() == [i < 6 for i in range(12)]
    assert torch.isnan(batch.forces).any(dim=1).sum() == 1
    assert batch.totals.structures == 12
    assert batch.totals.energies == 11
    assert batch.totals.stresses == 6
    assert batch.totals.forces == batch.totals.atoms - 1 == sum(dataset.sizes) - 1


def test_padding_has_no_labels_and_does_not_count(structures):
    dataset = AtomsDataset(structures, CUTOFF)
    samples = dataset.__getitems__([SampleRef(6, True, (6, 7))])
    batch = collate(samples)
    assert batch.index.tolist() == [-1]
    assert torch.isnan(batch.energy).all() and torch.isnan(batch.forces).all()
    assert torch.isnan(batch.stress).all()
    assert batch.totals.structures == 2 and batch.totals.forces == 8


def test_empty_batch():
    batch = collate([])
    assert batch.n_structures == 0
    assert batch.graph.edge_index.shape == (2, 0)
    assert batch.forces.shape == (0, 3) and batch.stress.shape == (0, 3, 3)


def test_batch_of_atoms(crystals):
    batch = batch_from_atoms(crystals, CUTOFF)
    assert batch.index.tolist() == list(range(6))
    expected = [atoms.calc.results["energy"] for atoms in crystals]
    np.testing.assert_array_equal(batch.energy.numpy(), expected)


@pytest.mark.parametrize(
    "atoms",
    [
        molecule("H2O"),
        Atoms("He"),
        Atoms(),
        bulk("Cu"),
        fcc111("Al", (2, 2, 3), vacuum=8.0),
        Atoms("C2", [[0, 0, 0], [0, 0, 1.2]], cell=[0, 0, 2.6], pbc=(False, False, True)),
    ],
)
def test_graph_of_atoms(atoms):
    graph = batch_from_atoms([atoms], CUTOFF).graph
    assert graph.species.tolist() == atoms.numbers.tolist()
    lengths = graph.edge_vectors.norm(dim=1)
    assert (lengths < CUTOFF).all()
    assert torch.equal(graph.edge_vectors[graph.reverse], -graph.edge_vectors)


def test_moving_a_batch_keeps_dtypes(structures):
    dataset = AtomsDataset(structures[:3], CUTOFF)
    batch = collate([dataset[i] for i in range(3)])
    assert_equal(batch.to("cpu"), batch)
    assert batch.to("meta").graph.edge_vectors.device.type == "meta"


def test_kept_neighbour_lists_change_nothing(structures):
    kept = AtomsDataset(structures, CUTOFF).prepare()
    anew = AtomsDataset(structures, CUTOFF, cache_bytes=0)
    assert kept.cached_bytes > 0 and anew.cached_bytes == 0
    for _ in range(2):
        assert_equal(collate([kept[i] for i in range(12)]), collate([anew[i] for i in range(12)]))
    assert anew.cached_bytes == 0


def test_memory_for_neighbour_lists_is_bounded(structures, caplog):
    dataset = AtomsDataset(structures, CUTOFF, cache_bytes=2000)
    with caplog.at_level("INFO"):
        dataset.prepare()
    assert 0 < dataset.cached_bytes <= 2000
    assert "found anew" in caplog.text


def test_preparing_in_processes_gives_the_same(structures, monkeypatch):
    monkeypatch.setattr("pet_mlip.data.dataset.ATOMS_PER_PROCESS", 10)
    here = AtomsDataset(structures, CUTOFF).prepare()
    seen = []
    there = AtomsDataset(structures, CUTOFF).prepare(processes=2, progress=seen.append)
    assert seen == list(range(1, 13))
    assert here.cached_bytes == there.cached_bytes
    assert_equal(collate([here[i] for i in range(12)]), collate([there[i] for i in range(12)]))


@pytest.mark.parametrize("workers", [0, 2])
def test_loader(structures, workers):
    dataset = AtomsDataset(structures, CUTOFF)
    sampler = AtomBudgetBatchSampler(dataset.sizes, 3, 20, seed=1)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers)
    batches = list(loader)
    assert len(batches) == len(sampler)
    assert sorted(i for b in batches for i in b.index.tolist()) == list(range(12))
    expected = sampler.global_batches(0)
    for batch, indices in zip(batches, expected, strict=True):
        assert batch.index.tolist() == list(indices)
        assert_equal(batch, collate([dataset[i] for i in indices]))


def test_far_unwrapped_atoms_keep_their_shifts():
    atoms = bulk("Cu", cubic=True)
    atoms.positions[0] += 40_000 * atoms.cell[0]
    dataset = AtomsDataset([structure_from_atoms(atoms)], 3.0)
    assert int(np.abs(dataset[0].shifts).max()) >= 40_000
    graph = collate([dataset[0]]).graph
    assert (graph.edge_vectors.norm(dim=1) < 3.0).all()
