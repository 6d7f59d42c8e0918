"""A torch data set of structures that remembers their neighbour lists."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from pet_mlip.data.batch import Sample, label_totals, make_sample
from pet_mlip.data.sampler import SampleRef
from pet_mlip.data.structure import Structure

log = logging.getLogger(__name__)

EdgeList = tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.integer]]
"""Edges (2, E), their shifts (E, 3) and their reverse edges (E,)."""

# With fewer atoms than this per process, starting them takes longer than the neighbour lists do.
ATOMS_PER_PROCESS = 50_000
CHUNK = 32


class AtomsDataset(Dataset[Sample]):
    """Structures with their neighbour lists, which are found once and then remembered.

    The memory for neighbour lists is bounded: what does not fit is found again at every visit (by
    the loader's workers, if there are any).

    Args:
        structures: What to iterate over.
        cutoff: Of the neighbour lists in Å.
        cache_bytes: Memory for neighbour lists, per process.
    """

    def __init__(
        self, structures: Sequence[Structure], cutoff: float, cache_bytes: int = 2 * 2**30
    ) -> None:
        self.structures = list(structures)
        self.cutoff = float(cutoff)
        self.cache_bytes = cache_bytes
        self.cached_bytes = 0
        self._edges: dict[int, EdgeList] = {}

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Atoms of each structure, (S,): what a batch sampler needs."""
        return np.array([structure.n_atoms for structure in self.structures], dtype=np.int64)

    def largest(self, n: int) -> list[int]:
        """The structures with the most edges, or atoms where edges are not known, descending."""

        def size(index: int) -> tuple[int, int]:
            edges = self._edges.get(index)
            known = 0 if edges is None else edges[0].shape[1]
            return known, self.structures[index].n_atoms

        return sorted(range(len(self)), key=size, reverse=True)[:n]

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, item: int | SampleRef) -> Sample:
        """The sample at an index, or what a batch sampler refers to."""
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[int | SampleRef]) -> list[Sample]:
        """Samples of one batch, with the totals of the global batch that they belong to."""
        refs = [item if isinstance(item, SampleRef) else SampleRef(int(item)) for item in items]
        totals = None
        if refs and refs[0].batch:
            totals = label_totals([self.structures[index] for index in refs[0].batch])
        return [
            Sample(self.structures[r.index], *self._edge_list(r.index), r.index, r.padding, totals)
            for r in refs
        ]

    def prepare(
        self, processes: int = 0, progress: Callable[[int], None] | None = None
    ) -> AtomsDataset:
        """Find neighbour lists up front, as many as the memory allows.

        Loader workers that are forked later share them. The result does not depend on the number of
        processes.

        Args:
            processes: Number of extra processes; 0 uses this one.
            progress: Called with the number of structures that are done.
        """
        waiting = [i for i in range(len(self)) if i not in self._edges]
        atoms = sum(self.structures[i].n_atoms for i in waiting)
        processes = min(processes, atoms // ATOMS_PER_PROCESS)
        for done, (index, edges) in enumerate(self._found(waiting, processes)):
            if not self._remember(index, edges):
                log.info(
                    "Neighbour lists of %d of %d structures fill the memory set aside for them "
                    "(%.1f GB); the others are found anew at every visit.",
                    len(self._edges),
                    len(self),
                    self.cache_bytes / 1e9,
                )
                break
            if progress:
                progress(done + 1)
        return self

    def _found(self, waiting: list[int], processes: int) -> Iterator[tuple[int, EdgeList]]:
        structures = [self.structures[index] for index in waiting]
        if processes > 0:
            loader = DataLoader(
                _EdgeLists(structures, self.cutoff),
                batch_size=CHUNK,
                num_workers=processes,
                collate_fn=list,
            )
            found = (edges for chunk in loader for edges in chunk)
        else:
            found = (compact_edges(structure, self.cutoff) for structure in structures)
        return zip(waiting, found, strict=True)

    def _edge_list(self, index: int) -> EdgeList:
        edges = self._edges.get(index)
        if edges is None:
            edges = compact_edges(self.structures[index], self.cutoff)
            self._remember(index, edges)
        return edges

    def _remember(self, index: int, edges: EdgeList) -> bool:
        size = sum(array.nbytes for array in edges)
        if self.cached_bytes + size > self.cache_bytes:
            return False
        self._edges[index] = edges
        self.cached_bytes += size
        return True


class _EdgeLists(Dataset[EdgeList]):
    """Neighbour lists as a data set, so that a loader's processes can find them."""

    def __init__(self, structures: Sequence[Structure], cutoff: float) -> None:
        self.structures = structures
        self.cutoff = cutoff

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, index: int) -> EdgeList:
        return compact_edges(self.structures[index], self.cutoff)


def compact_edges(structure: Structure, cutoff: float) -> EdgeList:
    """Find the neighbour list, in the smallest integers that hold it."""
    sample = make_sample(structure, cutoff)
    return _smallest(sample.edge_index), _smallest(sample.shifts), _smallest(sample.reverse)


def _smallest(values: NDArray[np.integer]) -> NDArray[np.integer]:
    largest = int(np.abs(values).max(initial=0))
    for dtype in (np.int8, np.int16, np.int32):
        if largest <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values
