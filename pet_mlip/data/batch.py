"""Batches: several structures in one graph, with their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from pet_mlip.data.labels import structure_from_atoms
from pet_mlip.data.neighbours import edge_vectors, neighbour_list
from pet_mlip.data.structure import Structure
from pet_mlip.graph.graph import Graph, find_reverse, map_tensors

Floats = NDArray[np.float64]


class BatchTotals(NamedTuple):
    """Sizes and numbers of labels of a global batch, of which a rank holds a part."""

    structures: int
    atoms: int
    energies: int
    """Structures with an energy."""
    forces: int
    """Atoms with a force."""
    stresses: int
    """Structures with a stress."""
    results: dict[str, int]
    """Numbers in the labels of each other result."""


@dataclass(eq=False)
class Sample:
    """A structure with its neighbour list, as a data set returns it."""

    structure: Structure
    edge_index: NDArray[np.integer]
    """(2, E)."""
    shifts: NDArray[np.integer]
    """(E, 3)."""
    reverse: NDArray[np.integer]
    """Number of the reverse of each edge, (E,)."""
    index: int = 0
    """Place of the structure in the data set."""
    padding: bool = False
    """A repetition that only keeps a rank busy: its labels do not count."""
    totals: BatchTotals | None = None
    """Of the global batch; None: the batch that is being collated is the global one."""


@dataclass(eq=False)
class Batch:
    """S structures in one graph; missing labels are nan; everything in eV and Å, float64."""

    graph: Graph
    """Atoms and edges of all of them."""
    structure: Tensor
    """Structure of each atom, (N,) int64."""
    n_atoms: Tensor
    """Number of atoms of each structure, (S,) int64."""
    volume: Tensor
    """Volumes in Å^3, (S,); nan without a volume."""
    energy: Tensor
    """Total energies in eV, (S,)."""
    forces: Tensor
    """Forces in eV/Å, (N, 3)."""
    stress: Tensor
    """Stresses in eV/Å^3, (S, 3, 3)."""
    results: dict[str, Tensor]
    """Other labels of structures by name, (S,), (S, 3) or (S, 3, 3); of those that some have."""
    atomic_results: dict[str, Tensor]
    """Other labels of atoms by name, (N,), (N, 3) or (N, 3, 3)."""
    index: Tensor
    """Place of each structure in the data set, (S,) int64; -1 for padding."""
    totals: BatchTotals
    """Of the global batch, for a loss that does not depend on the number of ranks."""

    @property
    def n_structures(self) -> int:
        """Structures in this batch, padding included."""
        return self.n_atoms.shape[0]

    def part(self, start: int, end: int) -> Batch:
        """Take the structures from one number to another, of the same global batch."""
        ends = torch.cumsum(self.n_atoms, dim=0)
        first_atom = int(ends[start - 1]) if start > 0 else 0
        last_atom = int(ends[end - 1]) if end > 0 else 0
        # Edges stand in the order of the structures.
        atoms = slice(first_atom, last_atom)
        of_edges = self.structure[self.graph.edge_index[0]]
        bounds = torch.searchsorted(of_edges, torch.tensor([start, end], device=of_edges.device))
        edges = slice(*bounds.tolist())
        graph = Graph(
            self.graph.species[atoms],
            self.graph.edge_index[:, edges] - first_atom,
            self.graph.edge_vectors[edges],
            self.graph.reverse[edges] - edges.start,
            self.graph.electronic[atoms],
            [last_atom - first_atom],
        )
        return replace(
            self,
            graph=graph,
            structure=self.structure[atoms] - start,
            n_atoms=self.n_atoms[start:end],
            volume=self.volume[start:end],
            energy=self.energy[start:end],
            forces=self.forces[atoms],
            stress=self.stress[start:end],
            results={name: values[start:end] for name, values in self.results.items()},
            atomic_results={name: values[atoms] for name, values in self.atomic_results.items()},
            index=self.index[start:end],
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Copy the batch to another device; dtypes do not change."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return self._map(move)

    def pin_memory(self) -> Batch:
        """Copy the batch to page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        moved: dict[str, Any] = {"graph": map_tensors(self.graph, move)}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                moved[item.name] = move(value)
            elif isinstance(value, dict):
                moved[item.name] = {name: move(values) for name, values in value.items()}
        return replace(self, **moved)


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of the samples, in their order; none at all gives an empty batch."""
    structures = [sample.structure for sample in samples]
    counts = np.array([structure.n_atoms for structure in structures], dtype=np.int64)
    labelled = [None if sample.padding else sample.structure for sample in samples]
    totals = samples[0].totals if samples else None
    if totals is None:
        totals = label_totals([structure for structure in labelled if structure is not None])
    return Batch(
        graph=_collate_graphs(samples, counts),
        structure=torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
        n_atoms=torch.from_numpy(counts),
        volume=torch.tensor([s.volume for s in structures], dtype=torch.float64),
        energy=_tensor([_label(s, "energy", ()) for s in labelled], ()),
        forces=_concatenate(
            [_label(s, "forces", (n, 3)) for s, n in zip(labelled, counts, strict=True)]
        ),
        stress=_tensor([_label(s, "stress", (3, 3)) for s in labelled], (3, 3)),
        results=_collate_results(labelled),
        atomic_results=_collate_atomic_results(labelled, counts),
        index=torch.tensor([-1 if s.padding else s.index for s in samples], dtype=torch.int64),
        totals=totals,
    )


def label_totals(structures: Sequence[Structure]) -> BatchTotals:
    """Numbers of structures, atoms and labels."""
    return BatchTotals(
        structures=len(structures),
        atoms=sum(s.n_atoms for s in structures),
        energies=sum(s.energy is not None for s in structures),
        forces=sum(s.n_atoms for s in structures if s.forces is not None),
        stresses=sum(s.stress is not None for s in structures),
        results=dict(
            sum(
                (
                    Counter({name: values.size for name, values in labels.items()})
                    for s in structures
                    for labels in (s.results, s.atomic_results)
                ),
                Counter[str](),
            )
        ),
    )


def make_sample(structure: Structure, cutoff: float) -> Sample:
    """The structure with its neighbours closer than the cutoff in Å."""
    edge_index, shifts, _ = neighbour_list(
        structure.positions, structure.cell, structure.pbc, cutoff
    )
    pairs = torch.from_numpy(edge_index)
    reverse = find_reverse(pairs, torch.from_numpy(shifts), structure.n_atoms)
    return Sample(structure, edge_index, shifts, reverse.numpy())


def batch_from_atoms(atoms: Sequence[Atoms], cutoff: float) -> Batch:
    """Make one batch of ASE atoms, with the labels that their calculators or info hold.

    Args:
        atoms: S structures.
        cutoff: Distance in Å up to which atoms are neighbours.

    Raises:
        UserError: A label has a wrong shape.
    """
    samples = [make_sample(structure_from_atoms(each), cutoff) for each in atoms]
    for index, sample in enumerate(samples):
        sample.index = index
    return collate(samples)


def _label(structure: Structure | None, name: str, shape: tuple[int, ...]) -> Floats:
    """The label, or nan in its place."""
    value = None if structure is None else getattr(structure, name)
    return np.full(shape, np.nan) if value is None else np.asarray(value, dtype=np.float64)


def _collate_results(structures: Sequence[Structure | None]) -> dict[str, Tensor]:
    """Labels of structures, nan in the place of those that are missing."""
    shapes = {k: v.shape for s in structures if s is not None for k, v in s.results.items()}
    return {
        name: _tensor(
            [
                np.full(shape, np.nan) if s is None else s.results.get(name, np.full(shape, np.nan))
                for s in structures
            ],
            shape,
        )
        for name, shape in shapes.items()
    }


def _collate_atomic_results(
    structures: Sequence[Structure | None], counts: NDArray[np.int64]
) -> dict[str, Tensor]:
    """Labels of atoms, nan in the place of those that are missing."""
    known = [s for s in structures if s is not None]
    shapes = {k: v.shape[1:] for s in known for k, v in s.atomic_results.items()}
    found = {}
    for name, shape in shapes.items():
        parts = [
            np.full((n, *shape), np.nan)
            if s is None or name not in s.atomic_results
            else s.atomic_results[name]
            for s, n in zip(structures, counts, strict=True)
        ]
        found[name] = torch.from_numpy(np.concatenate(parts))
    return found


def _tensor(values: list[Floats], shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64).reshape(len(values), *shape))


def _concatenate(parts: list[Floats]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.zeros((0, 3)), *parts]))


def _collate_graphs(samples: Sequence[Sample], counts: NDArray[np.int64]) -> Graph:
    offsets = np.cumsum(counts) - counts
    species = [sample.structure.species for sample in samples]
    edges = [
        sample.edge_index.astype(np.int64) + offset
        for sample, offset in zip(samples, offsets, strict=True)
    ]
    vectors = [
        edge_vectors(s.structure.positions, s.structure.cell, s.edge_index, s.shifts)
        for s in samples
    ]
    n_edges = np.array([len(sample.reverse) for sample in samples], dtype=np.int64)
    reverse = [
        sample.reverse.astype(np.int64) + first
        for sample, first in zip(samples, np.cumsum(n_edges) - n_edges, strict=True)
    ]
    states = [(s.structure.charge, s.structure.spin_multiplicity) for s in samples]
    electronic = np.repeat(np.array(states, dtype=np.int64).reshape(-1, 2), counts, axis=0)
    return Graph(
        torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *species])),
        torch.from_numpy(np.concatenate([np.zeros((2, 0), np.int64), *edges], axis=1)),
        _concatenate(vectors),
        torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *reverse])),
        torch.from_numpy(electronic),
        [int(counts.sum())],
    )
